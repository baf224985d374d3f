"""Learning-rate schedules: the factor on the peak learning rate as a function of whole steps."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from regmix.types import Tag, require


class Schedule(Protocol):
    """factor(step, steps_per_epoch, epochs) in [0, 1] for the step about to be made, counted from 0."""

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    name: Tag[Literal["constant"]] = field(default="constant", kw_only=True)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Piecewise:
    """Multiplies the learning rate by `decay` at the start of each milestone epoch."""

    name: Tag[Literal["piecewise"]] = field(default="piecewise", kw_only=True)
    milestones: tuple[int, ...] = (100, 105)
    """Epochs after which the learning rate drops."""
    decay: float = 0.1
    """Factor at each milestone."""

    def __post_init__(self) -> None:
        require(all(m >= 1 for m in self.milestones), f"milestones {self.milestones} must be epochs from 1 on")
        require(0 < self.decay <= 1, f"decay is {self.decay}; it must lie in (0, 1]")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        passed = sum(step >= milestone * steps_per_epoch for milestone in self.milestones)
        return float(self.decay**passed)


@dataclass(frozen=True)
class Cyclic:
    """One cycle: rises linearly from near 0 to the peak over the first part of training, then falls to near 0."""

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


ScheduleConfig = Constant | Piecewise | Cyclic
