"""What shows the progress of a training to the user."""

from typing import Protocol

from regmix.runs.records import Epoch


class Display(Protocol):
    """Receives every event of a training that a user may want to see; a display that inherits ignores the others."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """The work begins: `total` images, `done` of which an interrupted run has already seen."""
        return

    def batch(self, examples: int) -> None:
        """A step with this many images is done."""
        return

    def epoch(self, row: Epoch) -> None:
        """An epoch is done; `row` is its line of metrics.jsonl."""
        return

    def alarm(self, text: str) -> None:
        """The guard against catastrophic overfitting has raised an alarm, or acted on one."""
        return

    def warn(self, text: str) -> None:
        """Something went wrong, and the training continues."""
        return

    def note(self, text: str) -> None:
        """Something about the data or the model that the user should know."""
        return
