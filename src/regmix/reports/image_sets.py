"""The sets of images on which the runs of a report were evaluated: what to know about those shown, and the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from regmix.reports import words
from regmix.reports.load import LoadedRun, checkpoints


@dataclass(frozen=True)
class OtherEvaluation:
    """An evaluation of the same weights on other images: checkpoint, images, date, a row of texts per column, notes."""

    checkpoint: str
    images: str
    made: str
    rows: list[tuple[str, str]]
    notes: list[str]


def notes(runs: Sequence[LoadedRun]) -> list[str]:
    """What the reader must know about the images behind the numbers, without repetitions."""
    texts = [
        f"{run.path.resolve().name}: {note}" if len(runs) > 1 else note
        for run in runs
        for name in checkpoints(run)
        for note in run.evaluations[name].about_images
    ]
    return [_about(text) for text in dict.fromkeys(texts)]


def others(run: LoadedRun) -> list[OtherEvaluation]:
    """The evaluations of a run that the tables do not show."""
    shown: list[OtherEvaluation] = []
    for evaluation in run.others:
        rows = []
        for column in evaluation.columns.values():
            name = words.attack_text(column.attack) + (f" at {words.eps_equals(column.eps_text)}" if column.eps else "")
            rows.append((name, f"{words.percent(column.accuracy)} ({words.interval_text(column)})"))
        images, about = words.sample_text(run, evaluation), [*map(_about, evaluation.about_images)]
        shown.append(OtherEvaluation(evaluation.subject.checkpoint, images, evaluation.made[:10], rows, about))
    return shown


def _about(note: str) -> str:
    return f"About the images: {note}."
