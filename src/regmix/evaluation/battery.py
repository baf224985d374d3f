"""Runs attacks over a test set and keeps, per example, what survived."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regmix.attacks import Attack, borrowed, packed, passes
from regmix.evaluation.outcomes import Outcomes
from regmix.evaluation.precision import screened
from regmix.objectives import hard
from regmix.threats import Threat
from regmix.types import Batch, Images, Labels, Model, UserError

CLEAN = "clean"
"""The column without an attack, the first of every table."""


def evaluate(
    model: Model,
    batches: Iterable[Batch],
    threat: Threat,
    attacks: Mapping[str, Attack],
    on_batch: Callable[[int], None] | None = None,
) -> Outcomes:
    """Attacks every correctly classified example with every attack, in evaluation mode.

    Returns the table whose first column is `clean` and whose others are the attacks in their order. The evaluator
    does not trust an attack: it asserts that the perturbation lies in the threat set and clips the adversarial image
    to [0, 1] before it asks the model again. The model's mode, gradients and BatchNorm statistics stay as they were.

    Args:
        batches: images in [0, 1] with class indices; they are streamed, and moved nowhere.
        on_batch: called after every batch with the number of its examples.

    Raises:
        UserError: images outside [0, 1], or labels outside the model's classes.
    """
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    with borrowed(model):
        for batch in batches:
            x, y = batch.x, hard(batch.y)
            correct = predict(model, x, y) == y
            columns = [correct]
            for attack in attacks.values():
                survives = torch.zeros_like(correct)
                if correct.any():
                    adversarial = perturb(model, attack, x[correct], y[correct], threat)
                    survives[correct] = predict(model, adversarial, y[correct]) == y[correct]
                columns.append(survives)
            rows.append(torch.stack(columns, 1).cpu())
            labels.append(y.cpu())
            if on_batch is not None:
                on_batch(len(x))
    if not rows:
        raise UserError("there is no example to evaluate")
    return Outcomes((CLEAN, *attacks), torch.cat(labels), torch.cat(rows))


class Journal(Protocol):
    """Remembers which rows a stage has broken in which chunk, so that a killed evaluation goes on where it was."""

    def find(self, stage: str, chunk: Sequence[int]) -> list[int] | None: ...
    def add(self, stage: str, chunk: Sequence[int], broken: Sequence[int]) -> None: ...


class World(Protocol):
    """The processes that share an evaluation."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def any(self, values: Bool[Tensor, "examples"]) -> Bool[Tensor, "examples"]: ...


def survivors(
    model: Model,
    take: Callable[[Int[Tensor, "chosen"]], Batch],
    alive: Bool[Tensor, "examples"],
    attack: Attack,
    threat: Threat,
    *,
    name: str,
    batch_size: int,
    screen: bool,
    journal: Journal,
    world: World,
    on_work: Callable[[int], None],
    keep: Callable[[Sequence[int], Images, Images], None] | None = None,
) -> Bool[Tensor, "examples"]:
    """Which of the examples that are still alive survive an attack.

    They are dealt into full chunks, the same ones whatever the number of processes, each of which takes every size-th.
    What an attack brings back is not trusted: see `evaluate`.

    Args:
        take: gives a batch of the examples at these positions.
        alive: which examples to attack, bool [N] on the host.
        name: of the attack, in the journal.
        screen: the attack may ask a bfloat16 copy of the model (an nn.Module); the model itself has the last word.
        on_work: called after every chunk with the passes through the network that it may have taken.
        keep: called with the positions of broken examples, their images, and their adversarial images.
    """
    attack = packed(attack, batch_size)
    broken = torch.zeros_like(alive)
    asked = None if screen and isinstance(model, nn.Module) else model
    with borrowed(model):
        todo = alive.nonzero()[:, 0]
        for first in range(world.rank * batch_size, len(todo), world.size * batch_size):
            chunk = todo[first : first + batch_size]
            rows = chunk.tolist()
            fallen = journal.find(name, rows)
            if fallen is None:
                batch = take(chunk)
                x, y = batch.x, hard(batch.y)
                if asked is None:
                    assert isinstance(model, nn.Module)
                    # the first chunk's, whoever has done it, so that every process and every resumption screens alike
                    reference = take(todo[:batch_size])
                    with repeatable(name, x.device):
                        asked = screened(model, reference.x, hard(reference.y))
                with repeatable(f"{name}/{rows[0]}", x.device):
                    adversarial = perturb(asked, attack, x, y, threat)
                    wrong = predict(model, adversarial, y) != y
                fallen = chunk[wrong.cpu()].tolist()
                if keep is not None and fallen:
                    keep(fallen, x[wrong], adversarial[wrong])
                journal.add(name, rows, fallen)
            broken[fallen] = True
            on_work(len(rows) * passes(attack))
    return alive & ~world.any(broken)


@contextmanager
def repeatable(about: str, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on `about` alone inside the block, for models that are random."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(zlib.crc32(about.encode()))
        yield


def perturb(model: Model, attack: Attack, x: Images, y: Labels, threat: Threat) -> Images:
    """The adversarial images of an attack, checked against the threat set and clipped to [0, 1]."""
    delta = attack(model, x, y, threat)
    longest = float(threat.norm(delta).max())
    assert longest <= threat.eps * (1 + 1e-5) + 1e-7, f"{attack} left the threat set: {longest} > {threat.eps}"
    return (x + delta).clamp(0, 1)


@torch.no_grad()
def predict(model: Model, x: Images, y: Labels) -> Labels:
    """The classes that the model sees in images that must lie in [0, 1]; y are the true ones, for checking."""
    if x.min() < 0 or x.max() > 1:
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; they must lie in [0, 1]")
    logits = model(x)
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise UserError(f"labels reach {int(y.max())} but the model has {logits.shape[1]} classes")
    if not logits.isfinite().all():
        raise UserError("the model's logits are not finite; an accuracy would mean nothing")
    return logits.argmax(1)


@dataclass(frozen=True)
class Examples:
    """A few images before and after an attack, for looking at."""

    x: Float[Tensor, "examples channels height width"]
    delta: Float[Tensor, "examples channels height width"]
    label: Int[Tensor, "examples"]
    clean_prediction: Int[Tensor, "examples"]
    adversarial_prediction: Int[Tensor, "examples"]


def collect_examples(model: Model, batch: Batch, threat: Threat, attack: Attack) -> Examples:
    """Attacks one batch and keeps the images, their perturbations and what the model sees in both."""
    x, y = batch.x, hard(batch.y)
    with borrowed(model):
        adversarial = perturb(model, attack, x, y, threat)
        before, after = predict(model, x, y), predict(model, adversarial, y)
    parts = (x, adversarial - x, y, before, after)
    return Examples(*(part.cpu() for part in parts))
