"""What the loop is told to do, and whom it tells what it does."""

from dataclasses import dataclass
from typing import Literal, Protocol

from regmix.config.averaging import AveragingConfig
from regmix.config.guard import Guard
from regmix.config.schedule import Schedule
from regmix.methods.base import Method
from regmix.threats import Threat

OnNonfinite = Literal["skip", "rollback", "stop"]


@dataclass(frozen=True)
class Plan:
    """What a training consists of: see Experiment, whose fields these are."""

    method: Method
    threat: Threat
    schedule: Schedule
    averaging: AveragingConfig
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    label_mass: float
    pad: int
    flip: bool
    clip_norm: float | None
    awp: float
    awp_warm_up: int
    validate_every: int
    best_of: Literal["weights", "either"]
    guard: Guard
    nonfinite: OnNonfinite
    sync_batchnorm: bool
    shard_weights: bool
    seed: int


class Display(Protocol):
    """Shows the training to whoever waits for it."""

    def start(self, description: str, total: int, done: int = 0) -> None: ...
    def batch(self, examples: int) -> None: ...
    def epoch(self, row: dict[str, object]) -> None: ...
    def alarm(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
