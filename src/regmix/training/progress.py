"""How far a training has come, in plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal


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
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.jsonl, one per completed epoch."""
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": 0, "pgd": -1.0, "one_answer": None})
    """The best weights so far: their epoch, their PGD accuracy on the validation images, and a warning about them."""
    one_answer: str | None = None
    """Warning of the last validation: the weights predict one class for nearly all images."""
    alarms: list[dict[str, Any]] = field(default_factory=list)
    """The guard's alarms: epoch, reason and action."""
    rollbacks: int = 0
    """How often the guard has rolled the run back."""
    left_out: list[tuple[int, int]] = field(default_factory=list)
    """(epoch, step) of the steps that are skipped, because the run went back for them."""

    @property
    def skipped(self) -> list[int]:
        """The steps of the current epoch that are skipped."""
        return [step for epoch, step in self.left_out if epoch == self.epoch]

    @property
    def validated(self) -> list[dict[str, Any]]:
        """The rows of the epochs that ended with a validation."""
        return [row for row in self.rows if row["validation"]]

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Adds the row of the current epoch, and moves on to the next epoch."""
        self.rows.append(row)
        self.epoch, self.step, self.trained, self.waited = self.epoch + 1, 0, 0.0, 0.0

    def warnings(self) -> list[str]:
        """Warnings about the saved weights: they predict one class for nearly all images."""
        texts = {"best": self.best["one_answer"], "last": self.one_answer}
        return [f"the {name} weights: {text}" for name, text in texts.items() if text is not None]

    def summary(self, status: Literal["finished", "stopped"]) -> dict[str, object]:
        """The values of result.json that describe the training."""
        return {
            "status": status, "epochs": self.epoch, "train_seconds": self.seconds, "best_epoch": self.best["epoch"],
            "best_pgd": self.best["pgd"], "alarms": self.alarms, "warnings": self.warnings(),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All values by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes its values out of a state, which may hold others."""
        # States of regmix 0.1 have no `one_answer`.
        state = {"one_answer": None, **state, "best": {"one_answer": None, **state["best"]}}
        for each in fields(self):
            setattr(self, each.name, state[each.name])
