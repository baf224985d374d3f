"""Averages of the weights along training."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

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
    """FGSM-PGK's moving average, which nearly stops where the attack stops being one.

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
    """Keeps the average of a model's parameters and floating-point buffers (BatchNorm statistics included)."""

    def __init__(self, model: nn.Module, averaging: Averaging, steps_per_epoch: int) -> None:
        self._averaging, self._steps_per_epoch = averaging, steps_per_epoch
        self._decay: Tensor = torch.tensor(0.0)
        self._averaged = AveragedModel(model, multi_avg_fn=self._update, use_buffers=True)  # type: ignore[arg-type]
        self._averaged.requires_grad_(False)
        # The average starts from the initial weights; AveragedModel would start from the first ones it is shown.
        self._averaged.n_averaged.fill_(1)
        self._t = 0

    def update(self, model: nn.Module, stats: dict[str, Tensor]) -> None:
        """Moves the average towards the model by one update."""
        self._decay = self._averaging.decay(self._t, self._steps_per_epoch, stats)
        self._averaged.update_parameters(model)
        self._t += 1

    @torch.no_grad()
    def _update(self, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            # By hand, because a foreach lerp takes no weight that lies on the device.
            torch._foreach_mul_(averaged, self._decay.to(averaged[0]))
            torch._foreach_add_(averaged, torch._foreach_mul(current, (1 - self._decay).to(averaged[0])))
        else:
            torch._foreach_copy_(averaged, current)

    @property
    def module(self) -> nn.Module:
        """The model that carries the averaged weights."""
        module: nn.Module = self._averaged.module
        return module

    def state_dict(self) -> dict[str, object]:
        return {"model": self.module.state_dict(), "t": self._t}

    def load_state_dict(self, state: dict[str, object]) -> None:
        model, t = state["model"], state["t"]
        assert isinstance(model, dict)
        assert isinstance(t, int)
        self.module.load_state_dict(model)
        self._t = t
