"""Learning-rate schedules: the factor on the peak learning rate as a function of whole steps."""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

from regmix.types import Tag, require


class Schedule(Protocol):
    """factor(step, steps_per_epoch, epochs) in [0, 1] for the step about to be made, counted from 0."""

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float: ...

    def momentum(self, step: int, steps_per_epoch: int, epochs: int) -> float | None:
        """The optimiser's momentum in that step; None leaves it as the experiment says."""
        return None


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate throughout."""

    name: Tag[Literal["constant"]] = field(default="constant", kw_only=True)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Multiplies the learning rate by `decay` at the start of each milestone epoch."""

    name: Tag[Literal["piecewise"]] = field(default="piecewise", kw_only=True)
    milestones: tuple[int, ...] = (100, 105)
    """Epochs after which the learning rate is multiplied by `decay`."""
    decay: float = 0.1
    """Factor on the learning rate at each milestone, in (0, 1]."""

    def __post_init__(self) -> None:
        require(all(m >= 1 for m in self.milestones), f"milestones {self.milestones} must be epochs from 1 on")
        require(0 < self.decay <= 1, f"decay is {self.decay}; it must lie in (0, 1]")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        passed = sum(step >= milestone * steps_per_epoch for milestone in self.milestones)
        return float(self.decay**passed)


@dataclass(frozen=True)
class Cyclic(Schedule):
    """The learning rate rises linearly from near 0 to the peak, then falls linearly to near 0."""

    name: Tag[Literal["cyclic"]] = field(default="cyclic", kw_only=True)
    warm_up: float = 0.4
    """Share of the training in which the learning rate rises, in (0, 1)."""

    def __post_init__(self) -> None:
        require(0 < self.warm_up < 1, f"warm_up is {self.warm_up}; it must lie in (0, 1)")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        total = steps_per_epoch * epochs
        peak = max(1, round(self.warm_up * total))
        if step < peak:
            return (step + 1) / peak
        return (total - step) / (total - peak + 1)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """torch's OneCycleLR, stepped once an epoch, as in the FastAT benchmark (arXiv 2604.22853, its main.py).

    In epoch e of E, with u = E * warm_up - 1 and the cosine c(a, b, s) = b + (a - b) (1 + cos(pi s)) / 2:

        factor   = c(1 / 25, 1, e / u) up to u, then c(1, 4e-6, (e - u) / (E - 1 - u))
        momentum = c(0.95, 0.85, e / u) up to u, then c(0.85, 0.95, (e - u) / (E - 1 - u))

    The momentum of the experiment is not used.
    """

    name: Tag[Literal["one_cycle"]] = field(default="one_cycle", kw_only=True)
    warm_up: float = 0.3
    """Share of the epochs in which the learning rate rises, in (0, 1)."""

    def __post_init__(self) -> None:
        require(0 < self.warm_up < 1, f"warm_up is {self.warm_up}; it must lie in (0, 1)")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return self._cosine(step // steps_per_epoch, epochs, 1 / 25, 1.0, 1 / 250_000)

    def momentum(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return self._cosine(step // steps_per_epoch, epochs, 0.95, 0.85, 0.95)

    def _cosine(self, epoch: int, epochs: int, start: float, peak: float, end: float) -> float:
        top = self.warm_up * epochs - 1
        if epoch <= top:
            first, last, share = start, peak, epoch / top if top > 0 else 1.0
        else:
            first, last, share = peak, end, (epoch - top) / (epochs - 1 - top)
        return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


ScheduleConfig = Constant | Piecewise | Cyclic | OneCycle
