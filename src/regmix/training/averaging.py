"""Averages of the weights along training."""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from regmix.training.sharded import load, local
from regmix.types import Tag, require


class Averaging(Protocol):
    """The share of the old average that is kept at update t, counted from 0: a float64 scalar on the device."""

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class NoAveraging:
    """No averaged weights."""

    name: Tag[Literal["none"]] = field(default="none", kw_only=True)


@dataclass(frozen=True)
class Ema:
    """Exponential moving average: w <- d w + (1 - d) theta, d = min(limit, (t + 1) / (t + 10))."""

    name: Tag[Literal["ema"]] = field(default="ema", kw_only=True)
    limit: float = 0.999
    """Largest share of the old average that is kept."""

    def __post_init__(self) -> None:
        require(0 <= self.limit <= 1, f"averaging limit is {self.limit}; it must lie in [0, 1]")

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        return torch.tensor(min(self.limit, (t + 1) / (t + 10)), dtype=torch.float64)


@dataclass(frozen=True)
class GatedEma:
    """FGSM-PGK's moving average, which nearly stops where the attack stops being one; for RegMix too.

    d = min(A, (t + 1) / (t + 10)) with A = limit where r < threshold, else min(1, 0.99999 r / threshold); r is the
    accuracy after the attack divided by that before it, which the method reports as the statistic `ratio`.
    """

    name: Tag[Literal["gated_ema"]] = field(default="gated_ema", kw_only=True)
    limit: float = 0.999
    """A while the attack works."""
    threshold: float = 0.82
    """Ratio from which on the average is nearly frozen (published: CIFAR-10 0.82; CIFAR-100 and Tiny ImageNet 0.9)."""

    def __post_init__(self) -> None:
        require(0 <= self.limit <= 1, f"averaging limit is {self.limit}; it must lie in [0, 1]")
        require(self.threshold > 0, f"averaging threshold is {self.threshold}; it must be positive")

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        ratio = stats["ratio"]
        frozen = (0.99999 * ratio.double() / self.threshold).clamp_max(1)
        # Compared in the ratio's own precision, so that 41 of 50 is not below 0.82.
        return torch.where(ratio < self.threshold, self.limit, frozen).clamp_max((t + 1) / (t + 10))


@dataclass(frozen=True)
class Swa:
    """Stochastic weight averaging: the mean of the weights at the end of every epoch after `start` (arXiv 1803.05407).

    Until then the average is the current weights. BatchNorm's running statistics are averaged like the weights; the
    paper computes them anew from the training images.
    """

    name: Tag[Literal["swa"]] = field(default="swa", kw_only=True)
    start: int = 75
    """Epochs before the first one that counts."""

    def __post_init__(self) -> None:
        require(self.start >= 0, f"averaging start is {self.start}; it must be at least 0")

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        ended, within = divmod(t + 1, steps_per_epoch)
        counted = ended - self.start
        share = 0.0 if counted <= 0 else 1.0 if within else 1 - 1 / counted
        return torch.tensor(share, dtype=torch.float64)


AveragingConfig = NoAveraging | Ema | GatedEma | Swa


class AveragedWeights:
    """Keeps the average of a model's parameters and floating-point buffers (BatchNorm statistics included).

    A tensor of several names counts once, and parameters that require no gradient are copied. Both models may still be
    moved or sharded before the first update.
    """

    def __init__(self, model: nn.Module, averaging: Averaging, steps_per_epoch: int) -> None:
        self._averaging, self._steps_per_epoch, self._t = averaging, steps_per_epoch, 0
        with torch.no_grad():  # a copy of a scripted module would be part of a graph
            self.module = copy.deepcopy(model)
        """The model that carries the averaged weights."""
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        self._model = model

    @cached_property
    def _pairs(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """The tensors of the average and of the model that belong together: those that are averaged, and the others.

        Others are counts, and weights that do not learn: rounding would move their average.
        """
        ours, theirs = ([*one.parameters(), *one.buffers()] for one in (self.module, self._model))
        pairs = [*zip(ours, theirs, strict=True)]
        frozen = {id(one) for one in self._model.parameters() if not one.requires_grad}
        moving = [theirs.is_floating_point() and id(theirs) not in frozen for _, theirs in pairs]
        return [*compress(pairs, moving)], [p for p, moves in zip(pairs, moving, strict=True) if not moves]

    @torch.no_grad()
    def update(self, stats: dict[str, Tensor]) -> None:
        """Moves the average towards the model by one update."""
        decay = self._averaging.decay(self._t, self._steps_per_epoch, stats)
        values, others = self._pairs
        averaged, current = ([local(t) for t in one] for one in zip(*values, strict=True))
        if decay.device.type == "cpu":
            torch._foreach_lerp_(averaged, current, float(1 - decay))
        else:
            # By hand, because a foreach lerp takes no weight that lies on the device.
            decay = decay.to(averaged[0].dtype)
            torch._foreach_mul_(averaged, decay)
            torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - decay))
        for ours, theirs in others:
            ours.copy_(theirs)
        self._t += 1

    def state_dict(self) -> dict[str, object]:
        return {"model": self.module.state_dict(), "t": self._t}

    def load_state_dict(self, state: dict[str, object]) -> None:
        model, t = state["model"], state["t"]
        assert isinstance(model, dict)
        assert isinstance(t, int)
        load(self.module, model)
        self._t = t
