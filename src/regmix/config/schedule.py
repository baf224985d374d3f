"""Learning-rate schedules: a factor on the peak learning rate for every step."""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

from regmix.types import Tag, require


class Schedule(Protocol):
    """Learning rate, and possibly momentum, as a function of the step, counted from 0 over the whole training."""

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The learning rate of the step divided by the peak learning rate, in [0, 1]."""
        ...

    def momentum(self, step: int, steps_per_epoch: int, epochs: int) -> float | None:
        """The momentum of the step; None means that of the experiment."""
        return None


@dataclass(frozen=True)
class Constant(Schedule):
    """The peak learning rate in every step."""

    name: Tag[Literal["constant"]] = field(default="constant", kw_only=True)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Multiplies the learning rate by `decay` at the start of each milestone epoch."""

    name: Tag[Literal["piecewise"]] = field(default="piecewise", kw_only=True)
    milestones: tuple[int, ...] = (100, 105)
    """Numbers of epochs after which the learning rate drops."""
    decay: float = 0.1
    """Factor at each milestone, in (0, 1]."""

    def __post_init__(self) -> None:
        require(all(m >= 1 for m in self.milestones), f"milestones {self.milestones} must be epochs from 1 on")
        require(0 < self.decay <= 1, f"decay is {self.decay}; it must lie in (0, 1]")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        drops = sum(step >= milestone * steps_per_epoch for milestone in self.milestones)
        return float(self.decay**drops)


@dataclass(frozen=True)
class Cyclic(Schedule):
    """One cycle: rises linearly from near 0 to the peak, then falls linearly to near 0."""

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
class Cosine(Schedule):
    """Rises linearly from near 0 to the peak, then falls along half a cosine to `end` (arXiv 1608.03983, no restarts).

    With T steps, of which W = warm_up T rise: factor(t) = (t + 1) / W for t < W, else
    end + (1 - end) (1 + cos(pi (t - W) / (T - W))) / 2.
    """

    name: Tag[Literal["cosine"]] = field(default="cosine", kw_only=True)
    warm_up: float = 0.1
    """Share of the training in which the learning rate rises, in [0, 1)."""
    end: float = 0.0
    """Factor that the learning rate falls to, in [0, 1]."""

    def __post_init__(self) -> None:
        require(0 <= self.warm_up < 1, f"warm_up is {self.warm_up}; it must lie in [0, 1)")
        require(0 <= self.end <= 1, f"end is {self.end}; it must lie in [0, 1]")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        total = steps_per_epoch * epochs
        rising = round(self.warm_up * total)
        if step < rising:
            return (step + 1) / rising
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2


@dataclass(frozen=True)
class OneCycle(Schedule):
    """torch's OneCycleLR stepped once per epoch, as in the FastAT benchmark (arXiv 2604.22853, its main.py).

    In epoch e of E, with u = E * warm_up - 1 and the cosine c(a, b, s) = b + (a - b) (1 + cos(pi s)) / 2:

        factor   = c(1 / 25, 1, e / u) if e <= u, else c(1, 4e-6, (e - u) / (E - 1 - u))
        momentum = c(0.95, 0.85, e / u) if e <= u, else c(0.85, 0.95, (e - u) / (E - 1 - u))

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
        turn = self.warm_up * epochs - 1
        if epoch <= turn:
            first, last, share = start, peak, epoch / turn if turn > 0 else 1.0
        else:
            first, last, share = peak, end, (epoch - turn) / (epochs - 1 - turn)
        return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


ScheduleConfig = Constant | Piecewise | Cyclic | Cosine | OneCycle
