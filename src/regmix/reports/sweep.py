"""The page and the records of `regmix sweep`: every point with its accuracy on the validation images."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from regmix import __version__
from regmix.evaluation import wilson
from regmix.reports import words
from regmix.reports.charts import Chart, Series, line_chart
from regmix.reports.intervals import Dot, IntervalChart, Row, interval_chart
from regmix.reports.report import templates
from regmix.runtime.files import write_text

ROWS = 20
"""At most as many points are in the chart of the ranking; the table has all."""
MEASURES = {"pgd": "accuracy under PGD-10", "clean": "accuracy without an attack"}
"""By what points are ranked: what the method chooses its best weights by. The second is for standard training."""
GROUPS = 5
"""A setting with more values is shown in as many groups of equally many points."""


@dataclass(frozen=True)
class Trial:
    """A point of the search. Accuracies are on the validation images, in [0, 1], as `MEASURES` says."""

    settings: dict[str, str]
    runs: list[str]
    seeds: list[float]
    """Of the best weights, by seed; empty unless all seeds were trained to the end."""
    left: list[str]
    """The names of the runs that were not."""
    validation: float | None
    """The mean over the seeds, by which points are ranked."""
    low: float | None
    """95 % Wilson interval of that mean: for the choice of the validation images, not of the seeds."""
    high: float | None
    epochs: list[tuple[int, float]]
    """(epoch, accuracy) of the first seed."""
    tested: bool
    """Whether the point was evaluated on the test images."""

    @property
    def text(self) -> str:
        """The settings in a line."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())


def trial(
    settings: dict[str, str], runs: Sequence[Path], seeds: Sequence[float], left: Sequence[str],
    epochs: Sequence[tuple[int, float]], images: int, *, tested: bool,
) -> Trial:  # fmt: skip
    """A point with its mean and interval; `images` is the number of validation images."""
    mean = sum(seeds) / len(seeds) if seeds else None
    low, high = (None, None) if mean is None else wilson(round(mean * images), images)
    return Trial(settings, [str(run) for run in runs], [*seeds], [*left], mean, low, high, [*epochs], tested)


def write_sweep(recipe: str, trials: Sequence[Trial], images: int, folder: Path, measure: str) -> None:
    """Writes sweep.json and sweep.html into a folder; `trials` are ranked, the best first; measure: of `MEASURES`."""
    facts = {"regmix": __version__, "recipe": recipe, "validation_images": images, "ranked_by": measure}
    record = facts | {"points": [*map(asdict, trials)]}
    write_text(folder / "sweep.json", json.dumps(record, indent=2) + "\n")
    complete = [each for each in trials if each.validation is not None]
    text = templates().get_template("sweep.html").render(
        version=__version__, words=words, recipe=recipe, images=images, trials=trials, complete=complete,
        summary=_summary(trials, complete, MEASURES[measure]), ranking=_ranking(complete), axes=_axes(complete),
        curves=_curves(trials, MEASURES[measure]),
    )  # fmt: skip
    write_text(folder / "sweep.html", text)


def _summary(trials: Sequence[Trial], complete: Sequence[Trial], measure: str) -> str:
    best, *others = complete
    text = (
        f"Of {words.counted(len(trials), 'point', 'points')}, {best.text} has the highest {measure} on the "
        f"validation images: {words.percent(best.validation or 0.0)}."
    )
    close = sum((each.high or 0.0) >= (best.validation or 0.0) for each in others)
    if close:
        text += f" The intervals of {words.counted(close, 'other point', 'other points')} reach that value, too."
    if rest := len(trials) - len(complete):
        text += f" {words.counted(rest, 'point is', 'points are')} not complete: ended early, or without all seeds."
    return text


def _ranking(complete: Sequence[Trial]) -> IntervalChart:
    rows = [
        Row(
            each.text,
            [Dot(each.validation, each.low, each.high)],
            words.percent(each.validation),
            3 if each.tested else 1,
        )
        for each in complete[:ROWS]
        if each.validation is not None and each.low is not None and each.high is not None
    ]
    shown = f"the best {ROWS} of {len(complete)}, " if len(complete) > ROWS else ""
    note = f"{shown}95% intervals for the choice of the validation images; green points met the test images"
    return interval_chart("Accuracy on the validation images", rows, note=note)


def _axes(complete: Sequence[Trial]) -> list[IntervalChart]:
    """Per setting, the mean and the range of the accuracies at each of its values."""
    charts = []
    for name in complete[0].settings:
        values = [each.settings[name] for each in complete]
        accuracies = [each.validation or 0.0 for each in complete]
        rows = []
        for label, members in _groups(values):
            own = [accuracies[number] for number in members]
            mean = sum(own) / len(own)
            rows.append(Row(label, [Dot(mean, min(own), max(own))], f"{words.percent(mean)} ({len(own)})"))
        if len(rows) > 1:
            note = "mean and range over the other settings; in brackets the number of points"
            charts.append(interval_chart(name, rows, note=note))
    return charts


def _groups(values: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The positions of each value, in order; of many different numbers, groups of about equally many points."""
    different = sorted({*values}, key=_order)
    if len(different) <= GROUPS or any(_order(value)[0] for value in different):
        return [(value, [n for n, own in enumerate(values) if own == value]) for value in different]
    order = sorted(range(len(values)), key=lambda number: _order(values[number]))
    size = math.ceil(len(order) / GROUPS)
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    return [(f"{values[part[0]]} to {values[part[-1]]}", part) for part in parts]


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _curves(trials: Sequence[Trial], measure: str) -> Chart | None:
    """The accuracies by epoch of all points: the best in colour, the others in grey."""
    series = [
        Series(each.text, [x for x, _ in each.epochs], [y for _, y in each.epochs], colour=1 if number == 0 else 0)
        for number, each in enumerate(trials)
        if each.epochs
    ]
    if not series or max(len(line.xs) for line in series) < 2:
        return None
    note = f"{measure} on the validation images; in colour the best point"
    return line_chart("Accuracy by epoch", series[::-1], x_label="epoch", percent=True, note=note)
