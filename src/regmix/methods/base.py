"""What a training method is, and the pieces that several of them share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn

from regmix.attacks import IN_PLACE, Ascent, explained, logits_in
from regmix.methods.memory import Memory, check_positions
from regmix.objectives import cross_entropy, hard, precise
from regmix.runtime import processes
from regmix.threats import Threat, check_threat
from regmix.types import Batch, Images, Losses, UserError, as_batch, check_values, require

_LOOKED_AT: "WeakSet[nn.Module]" = WeakSet()  # models one batch of which has been looked at


class Method(Protocol):
    """(model, batch, threat, memory) to the terms of the loss; a frozen dataclass whose fields are its settings.

    A method is called; what it computes is in `compute`, which the training loop, whose batches are its own, calls
    without the checks.
    """

    @property
    def replays(self) -> int:
        """How many steps in a row see the same batch; an epoch then shows every image once on average."""
        return 1

    def memory(
        self, count: int, shape: tuple[int, int, int], pad: int, threat: Threat, device: torch.device
    ) -> Memory | None:
        """The per-sample memory for `count` images [C, H, W] cropped out of a border of `pad`; None if it has none."""
        return None

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None = None) -> Losses:
        """The losses of a batch that is known to be right."""
        ...

    def __call__(
        self, model: nn.Module, batch: Batch | tuple[Tensor, Tensor] | list[Tensor], threat: Threat,
        memory: Memory | None = None,
    ) -> Losses:  # fmt: skip
        """The losses of a batch, Batch or (x, y). Types and shapes are checked in every call. The numbers are, too,
        where they lie on the CPU; elsewhere only in a model's first call, because a step must not wait for its device.
        Raises:
            UserError: images outside [0, 1], labels that are none of the model's classes, other shapes or types than
                those of Batch, a missing memory, or a model that returns no logits or changes its images in place.
        """
        check_threat(threat)
        batch = as_batch(batch)
        if not batch.x.is_meta and (batch.x.device.type == "cpu" or model not in _LOOKED_AT):
            check_values(batch)
            _LOOKED_AT.add(model)
        if memory is not None:
            batch = check_positions(batch, memory)
        elif self.memory(1, tuple(batch.x.shape[1:]), 0, threat, batch.x.device) is not None:  # type: ignore[arg-type]
            make = f"memory = method.memory(count, {tuple(batch.x.shape[1:])}, 0, threat, x.device)"
            raise UserError(f"{type(self).__name__} needs a memory of all `count` images, made once: {make}")
        version = batch.x._version  # counted by torch, so that asking waits for no device
        with explained(model, batch):
            losses = self.compute(model, batch, threat, memory)
        require(batch.x._version == version, IN_PLACE)
        logits_in(losses.logits, len(batch.x))
        return losses


def check_attack(steps: int, step_size: float) -> None:
    """Raises UserError unless there is at least one step, of positive length."""
    require(steps >= 1, f"method steps is {steps}; it must be at least 1")
    require(0 < step_size < float("inf"), f"method step_size is {step_size}; it must be positive, in units of eps")


def check_weights(**weights: float) -> None:
    """Raises UserError for a weight that is negative or not finite."""
    for name, weight in weights.items():
        require(0 <= weight < float("inf"), f"method {name} is {weight}; it must be 0 or positive")


def proximal_losses(model: nn.Module, batch: Batch, ascent: Ascent, lam: float) -> Losses:
    """CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2), the mean over every logit.

    delta is where the attack began and delta' where it ended; both outputs carry gradients.
    """
    before, after = ascent.first_logits, model(batch.x + ascent.delta)
    distance = (precise(after) - precise(before)).square().mean()
    terms = {"classify": cross_entropy(after, batch.y).mean(), "proximity": lam * distance}
    return Losses(terms, after, {"proximity": distance.detach()})


def attack_ratio(batch: Batch, after: Tensor, before: Tensor) -> Tensor:
    """The accuracy after an attack divided by that before it, from the logits; over at least one correct example."""
    hits = torch.stack([(logits.argmax(1) == hard(batch.y)).sum() for logits in (after, before)])
    totals = processes.total(hits).to(batch.x.dtype)
    return totals[0] / totals[1].clamp_min(1)


def remembered_or_corner(batch: Batch, threat: Threat, memory: Memory, reset: int) -> Tensor:
    """The remembered perturbations; a random corner in every `reset`-th epoch, the first included."""
    if memory.epoch % reset == 0:
        return threat.corner(batch.x)
    return memory.priors["delta"].read(batch)


def mean_one(gradient: Images) -> Images:
    """The gradients of a batch in units of their mean absolute element; zeros stay zeros."""
    return gradient / processes.mean(gradient.abs()).clamp_min(torch.finfo(gradient.dtype).tiny)


@contextmanager
def batchnorm_mode(model: nn.Module, mode: Literal["train", "eval"]) -> Iterator[None]:
    """Runs BatchNorm on the batch's statistics, updating the running ones (train), or on the running ones (eval).

    Layers that are in evaluation mode in a model that is not are frozen, and stay so.
    """
    if mode == "train" and model.training:
        yield
        return
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    layers = [layer for layer in norms if layer.training != (mode == "train")]
    for layer in layers:
        layer.train(mode == "train")
    try:
        yield
    finally:
        for layer in layers:
            layer.train(mode != "train")
