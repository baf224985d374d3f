"""Averages of the weights over the training: the share of the old average that each update keeps."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from regmix.types import Tag, require


class Averaging(Protocol):
    """A running average: w <- d w + (1 - d) theta at every update, with d = decay(t, ...)."""

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        """The share d of the old average that is kept at update t, counted from 0: a float64 scalar in [0, 1].

        stats: the statistics of the method's step, on the device; decay does not wait for their values.
        """
        ...


@dataclass(frozen=True)
class NoAveraging:
    """No averaged weights."""

    name: Tag[Literal["none"]] = field(default="none", kw_only=True)


@dataclass(frozen=True)
class Ema:
    """Exponential moving average: w <- d w + (1 - d) theta, d = min(limit, (t + 1) / (t + 10))."""

    name: Tag[Literal["ema"]] = field(default="ema", kw_only=True)
    limit: float = 0.999
    """Largest share of the old average that an update keeps, in [0, 1]."""

    def __post_init__(self) -> None:
        require(0 <= self.limit <= 1, f"averaging limit is {self.limit}; it must lie in [0, 1]")

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        return torch.tensor(min(self.limit, (t + 1) / (t + 10)), dtype=torch.float64)


@dataclass(frozen=True)
class GatedEma:
    """Moving average of FGSM-PGK, which nearly stops when the attack has lost its effect; for RegMix, too.

    d = min(A, (t + 1) / (t + 10)) with A = limit if r < threshold, else A = min(1, 0.99999 r / threshold). r is the
    accuracy after the attack divided by the accuracy before it, which the method reports as the statistic `ratio`.
    """

    name: Tag[Literal["gated_ema"]] = field(default="gated_ema", kw_only=True)
    limit: float = 0.999
    """A while the attack is effective."""
    threshold: float = 0.82
    """Ratio from which on the average nearly stops (published: 0.82 for CIFAR-10, 0.9 for CIFAR-100 and Tiny
    ImageNet)."""

    def __post_init__(self) -> None:
        require(0 <= self.limit <= 1, f"averaging limit is {self.limit}; it must lie in [0, 1]")
        require(self.threshold > 0, f"averaging threshold is {self.threshold}; it must be positive")

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        ratio = stats["ratio"]
        frozen = (0.99999 * ratio.double() / self.threshold).clamp_max(1)
        # Compared in the precision of the ratio, where 41 of 50 is not below 0.82.
        return torch.where(ratio < self.threshold, self.limit, frozen).clamp_max((t + 1) / (t + 10))


@dataclass(frozen=True)
class Swa:
    """Stochastic weight averaging: the mean of the weights at the end of every epoch after `start` (arXiv 1803.05407).

    Until then the average is the current weights. Deviation from the paper: BatchNorm's running statistics are averaged
    like the weights; the paper recomputes them on the training images.
    """

    name: Tag[Literal["swa"]] = field(default="swa", kw_only=True)
    start: int = 75
    """Epochs before the first one that enters the mean."""

    def __post_init__(self) -> None:
        require(self.start >= 0, f"averaging start is {self.start}; it must be at least 0")

    def decay(self, t: int, steps_per_epoch: int, stats: dict[str, Tensor]) -> Tensor:
        epochs, step = divmod(t + 1, steps_per_epoch)
        averaged = epochs - self.start
        share = 0.0 if averaged <= 0 else 1.0 if step else 1 - 1 / averaged
        return torch.tensor(share, dtype=torch.float64)


AveragingConfig = NoAveraging | Ema | GatedEma | Swa
