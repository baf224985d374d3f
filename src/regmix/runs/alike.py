"""Whether images are those of before, and trainings seeds of one experiment."""

from typing import Protocol

from regmix.data import changes
from regmix.runs.records import Data, Environment, Result


def image_changes(before: Data, now: Data) -> str:
    """How the images of a training differ from those that a run has recorded, in a clause; empty if they do not."""
    text = changes(before.train, now.train) or changes(before.validation, now.validation)
    if not text or before.held_out == now.held_out:
        return text
    if not before.held_out:
        return (
            f"its validation images were taken from train/, and would now be those of {now.held_out}/ (rename that "
            "folder to keep them)"
        )
    if not now.held_out:
        return f"its validation images were those of {before.held_out}/, which is gone or has no test/ beside it"
    return f"its validation images were those of {before.held_out}/, and would now be those of {now.held_out}/"


class Training(Protocol):
    """The records of a training."""

    @property
    def data(self) -> Data | None:
        """Of data.json."""

    @property
    def environment(self) -> Environment:
        """Of environment.json."""

    @property
    def result(self) -> Result:
        """Of result.json."""


def told_apart(first: Training, second: Training) -> str | None:
    """Why two runs with the same settings are not seeds of one experiment; None if no record says so.

    What an older version did not record tells nothing apart.
    """
    if first.data is not None and second.data is not None:
        if first.data.train.content != second.data.train.content:
            counts = first.data.train.images, second.data.train.images
            return f"they learned from different images ({counts[0]:,} and {counts[1]:,})"
        if first.data.validation.content != second.data.validation.content:
            return "they were validated on different images"
    if first.environment.init != second.environment.init:
        return "they started from different weights"
    if None not in (both := (first.environment.precision, second.environment.precision)) and both[0] != both[1]:
        return f"they were trained with different precision ({both[0]} and {both[1]})"
    if first.result.lengthened != second.result.lengthened:
        return "one of them was lengthened, so their learning rates differ"
    return None
