"""Runs attacks over a test set and keeps, per example, what survived."""

import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from regmix.attacks import Attack, attempt, explained, logits_in, named_attacks, packed, passes
from regmix.evaluation.answers import require_gradient, untouched
from regmix.evaluation.outcomes import Outcomes
from regmix.evaluation.screening.rough_copy import NoCopy, screened
from regmix.objectives import hard
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat, check_threat
from regmix.types import Batch, Images, Labels, Model, UserError, as_batch, check_values

CLEAN = "clean"
"""The column without an attack, the first of every table."""


def evaluate(
    model: Model,
    batches: Iterable[Batch | tuple[Tensor, Tensor] | list[Tensor]],
    threat: Threat,
    attacks: str | Iterable[str | Attack] | Mapping[str, str | Attack],
    on_batch: Callable[[int], None] | None = None,
) -> Outcomes:
    """Attacks every correctly classified example with every attack, in evaluation mode.

    Returns the table whose first column is `clean` and whose others are the attacks in their order. The evaluator
    does not trust an attack: it asserts that the perturbation lies in the threat set and clips the adversarial image
    to [0, 1] before it asks the model again. The model's mode, gradients and BatchNorm statistics stay as they were.
    Rows that an attack could not take on survive it; the table knows them (`Outcomes.not_attacked`), and a warning says
    how many they are.

    Args:
        batches: Batch or (images, labels), images in [0, 1] with class indices; they are streamed, and moved nowhere.
        attacks: names ("pgd-50,autoattack", or a list), attacks, or a dict that names them.
        on_batch: called after every batch with the number of its examples.

    Raises:
        UserError: no example, images outside [0, 1], labels outside the model's classes or of another shape or type
            than Batch has, an unknown attack or one that is not made for the threat, a model that fails, does not
            return finite logits [B, classes], changes its images in place, or gives no gradient to an attack that needs
            one, or perturbations that are not finite.
    """
    check_threat(threat)
    suite = named_attacks(attacks)
    for attack in suite.values():
        getattr(attack, "check", lambda _: None)(threat)
    rows, labels, untried, predicted = [], [], [], []
    with borrowed(model):
        for given in _iterated(batches):
            batch = as_batch(given)
            check_values(batch)
            x, y = batch.x.clamp(0, 1), hard(batch.y)
            with explained(model, batch):
                seen = predict(model, x, y)
            predicted.append(seen.cpu())
            correct = seen == y
            columns, missed = [correct], [torch.zeros_like(correct)]
            for attack in suite.values():
                survives, idle = torch.zeros_like(correct), torch.zeros_like(correct)
                if correct.any():
                    try:
                        adversarial, attacked = _perturb(model, attack, x[correct], y[correct], threat)
                    except (RuntimeError, TypeError):
                        require_gradient(model, x, suite)  # only now, because asking takes a pass
                        raise
                    survives[correct] = predict(model, adversarial, y[correct]) == y[correct]
                    idle[correct] = ~attacked
                columns.append(survives)
                missed.append(idle & survives)
            rows.append(torch.stack(columns, 1).cpu())
            untried.append(torch.stack(missed, 1).cpu())
            labels.append(y.cpu())
            if on_batch is not None:
                on_batch(len(x))
    if not rows:
        raise UserError("there is no example to evaluate")
    outcomes = Outcomes(
        (CLEAN, *suite), torch.cat(labels), torch.cat(rows), torch.cat(untried), torch.cat(predicted)
    )  # fmt: skip
    for name in suite:
        if note := not_attacked_note(outcomes.not_attacked(name), len(outcomes)):
            warnings.warn(f"{name}: {note}", stacklevel=2)
    return outcomes


def not_attacked_note(rows: int, examples: int) -> str:
    """What stands beside the number of an attack that left surviving rows alone; empty where there are none."""
    return (
        f"{rows} of {examples} images were not attacked (no start or no gradient there) and count as robust"
        if rows
        else ""
    )


def _iterated(batches: object) -> Iterator[object]:
    if isinstance(batches, Batch | Tensor) or not isinstance(batches, Iterable):
        raise UserError(f"batches are {type(batches).__name__}; give a loader or a list of batches: [Batch(x, y)]")
    yield from batches


class Journal(Protocol):
    """Remembers which rows a stage has broken in which chunk, so that a killed evaluation goes on where it was."""

    def find(self, stage: str, chunk: Sequence[int]) -> list[int] | None: ...
    def add(self, stage: str, chunk: Sequence[int], broken: Sequence[int]) -> None: ...


class Survivors(NamedTuple):
    """Which examples survive an attack, and which of them it could not take on, bool [N] each."""

    alive: Bool[Tensor, "examples"]
    not_attacked: Bool[Tensor, "examples"]


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
    note: Callable[[str], object] = lambda _: None,
) -> Survivors:
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
        note: called with a line if there is no bfloat16 copy, and the attack asks the model alone.
    """
    attack = packed(attack, batch_size)
    broken, idle = torch.zeros_like(alive), torch.zeros_like(alive)
    untried = f"{name}, not attacked"
    asked = None if screen and isinstance(model, nn.Module) else model
    with borrowed(model):
        todo = alive.nonzero()[:, 0]
        for first in range(world.rank * batch_size, len(todo), world.size * batch_size):
            chunk = todo[first : first + batch_size]
            rows = chunk.tolist()
            fallen, left = journal.find(name, rows), journal.find(untried, rows) or []
            if fallen is None:
                batch = take(chunk)
                x, y = batch.x, hard(batch.y)
                if asked is None:
                    assert isinstance(model, nn.Module)
                    # the first chunk's, whoever has done it, so that every process and every resumption screens alike
                    reference = take(todo[:batch_size])
                    with repeatable(name, x.device):
                        try:
                            asked = screened(model, reference.x, hard(reference.y))
                        except NoCopy as reason:
                            asked = model
                            note(f"no bfloat16 copy of the model screens, as with --exact ({reason})")
                with repeatable(f"{name}/{rows[0]}", x.device):
                    adversarial, attacked = _perturb(asked, attack, x, y, threat)
                    wrong = predict(model, adversarial, y) != y
                fallen = chunk[wrong.cpu()].tolist()
                if keep is not None and fallen:
                    keep(fallen, x[wrong], adversarial[wrong])
                if left := chunk[~(wrong | attacked).cpu()].tolist():
                    journal.add(untried, rows, left)  # before the line that says that the chunk is done
                journal.add(name, rows, fallen)
            broken[fallen] = True
            idle[left] = True
            on_work(len(rows) * passes(attack))
    return Survivors(alive & ~world.any(broken), world.any(idle))


@contextmanager
def repeatable(about: str, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on `about` alone inside the block, for models that are random."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(zlib.crc32(about.encode()))
        yield


def perturb(model: Model, attack: Attack, x: Images, y: Labels, threat: Threat) -> Images:
    """The adversarial images of an attack, checked against the threat set and clipped to [0, 1]."""
    return _perturb(model, attack, x, y, threat)[0]


def _perturb(
    model: Model, attack: Attack, x: Images, y: Labels, threat: Threat
) -> tuple[Images, Bool[Tensor, "batch"]]:
    """What `perturb` returns, and which rows were attacked."""
    delta, attacked = attempt(attack, model, x, y, threat)
    if bad := int((~delta.isfinite()).flatten(1).any(1).sum()):
        raise UserError(
            f"{attack} made {bad} of {len(x)} perturbations that are not finite: the model's gradients are not; "
            "look for a division by zero, a square root or a logarithm of zero in it"
        )
    longest = float(threat.norm(delta).max())
    assert longest <= threat.eps * (1 + 1e-5) + 1e-7, f"{attack} left the threat set: {longest} > {threat.eps}"
    return (x + delta).clamp(0, 1), attacked


@torch.no_grad()
def predict(model: Model, x: Images, y: Labels) -> Labels:
    """The classes that the model sees in images that must lie in [0, 1]; y are the true ones, for checking."""
    if not (x.min() >= 0 and x.max() <= 1):  # so that NaN is not among them
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; they must lie in [0, 1]")
    logits = logits_in(untouched(model, x), len(x))
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
