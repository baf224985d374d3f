"""What must be told beside the numbers of evaluations: their attacks, remarks about these, and the images."""

from collections.abc import Sequence

from regmix.reports import words
from regmix.reports.load import LoadedRun, checkpoints


def attacks(runs: Sequence[LoadedRun]) -> list[str]:
    """The names of all attacks in these evaluations, in order, without clean."""
    names = [
        column.attack
        for run in runs
        for name in checkpoints(run)
        for column in run.evaluations[name].columns.values()
        if column.eps > 0
    ]
    return list(dict.fromkeys(names))


def notes(runs: Sequence[LoadedRun]) -> list[str]:
    """The remarks that must stand beside the numbers of some attacks."""
    remarks = {
        column.attack: f"{words.attack_text(column.attack)}: {column.note}"
        for run in runs
        for name in checkpoints(run)
        for column in run.evaluations[name].columns.values()
        if column.note
    }
    return list(remarks.values())


def samples(runs: Sequence[LoadedRun]) -> list[str]:
    """Descriptions of the test images that these evaluations used, without repetitions."""
    texts = [words.sample_text(run, run.evaluations[name]) for run in runs for name in checkpoints(run)]
    return list(dict.fromkeys(texts))
