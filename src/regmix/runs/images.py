"""Whether the images of a run are still the same."""

from regmix.data import changes
from regmix.runs.records import Data


def image_changes(before: Data, now: Data) -> str:
    """How the images of a training differ from those that a run has recorded, in a clause; empty if they do not."""
    text = changes(before.train, now.train) or changes(before.validation, now.validation)
    if not text or before.held_out == now.held_out:
        return text
    if not before.held_out:
        return (
            f"its validation images were taken from train/, and would now be those of {now.held_out}/; to go on, "
            "rename that folder"
        )
    if not now.held_out:
        return f"its validation images were those of {before.held_out}/, which is gone or has no test/ beside it"
    return f"its validation images were those of {before.held_out}/, and would now be those of {now.held_out}/"
