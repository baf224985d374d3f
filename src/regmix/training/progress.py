"""How far a training has come."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from regmix.runs.files import typed
from regmix.runs.records import Alarm, Epoch, Result


@dataclass(frozen=True)
class Best:
    """The best weights so far."""

    epoch: int = 0
    """The completed epochs when they were saved; 0: none yet."""
    pgd: float = -1.0
    """Their PGD accuracy on the validation images, in [0, 1]."""
    one_answer: str | None = None
    """Warning: they predict one class for nearly all images."""
    clean: float = -1.0
    """Their clean accuracy on the validation images, in [0, 1]; after standard training they are chosen by it."""
    averaged: bool | None = None
    """Whether they are the moving average of the weights; None in a state of an older version."""


@dataclass
class Progress:
    """Counters and history of a training. All of it is saved with the state; nothing is read back from other files."""

    epoch: int = 0
    """Completed epochs, which is the index of the current epoch, counted from 0."""
    step: int = 0
    """Completed steps of the current epoch."""
    trained: float = 0.0
    """Seconds spent on the steps of the current epoch."""
    waited: float = 0.0
    """Seconds of these that were spent waiting for a batch."""
    seconds: float = 0.0
    """Seconds spent on the whole training, validations included."""
    rows: list[Epoch] = field(default_factory=list)
    """The rows of metrics.jsonl, one per completed epoch."""
    best: Best = field(default_factory=Best)
    one_answer: str | None = None
    """Warning of the last validation: the weights predict one class for nearly all images."""
    alarms: list[Alarm] = field(default_factory=list)
    """The guard's alarms."""
    rollbacks: int = 0
    """How often the guard has rolled the run back."""
    left_out: list[tuple[int, int]] = field(default_factory=list)
    """(epoch, step) of the steps that are skipped, because the run went back for them."""

    @property
    def skipped(self) -> list[int]:
        """The steps of the current epoch that are skipped."""
        return [step for epoch, step in self.left_out if epoch == self.epoch]

    @property
    def validated(self) -> list[Epoch]:
        """The rows of the epochs that ended with a validation."""
        return [row for row in self.rows if row.validation]

    def end_epoch(self, row: Epoch) -> None:
        """Adds the row of the current epoch, and moves on to the next epoch."""
        self.rows.append(row)
        self.epoch, self.step, self.trained, self.waited = self.epoch + 1, 0, 0.0, 0.0

    def warnings(self) -> list[str]:
        """Warnings about the saved weights: they predict one class for nearly all images."""
        texts = {"best": self.best.one_answer, "last": self.one_answer}
        return [f"the {name} weights: {text}" for name, text in texts.items() if text is not None]

    def summary(self, status: Literal["finished", "stopped"], result: Result) -> Result:
        """The record of the run, with the values that describe its training."""
        return replace(
            result, status=status, epochs=self.epoch, train_seconds=self.seconds, best_epoch=self.best.epoch,
            best_pgd=self.best.pgd, best_clean=self.best.clean if self.best.clean >= 0 else None,
            best_averaged=self.best.averaged, alarms=self.alarms, warnings=self.warnings(),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All values by name, in plain types."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Takes its values out of a state, which may hold others; errors name its source.

        States of regmix 0.1 have no `one_answer`.
        """
        names = {each.name for each in fields(self)}
        loaded = typed(source, Progress, {name: value for name, value in state.items() if name in names})
        for name in names:
            setattr(self, name, getattr(loaded, name))
