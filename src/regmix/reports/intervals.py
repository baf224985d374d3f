"""Lays out charts of values with intervals: a row with a label per run, class, radius or difference.

As in `charts`, a chart is 360 units wide, about the width of a phone in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from regmix.reports.charts import LEFT, RIGHT, WIDTH, Tick, nice, texts, without_overlap
from regmix.reports.statistics import Share

MARGIN, FIRST, STEP, FOOT = 10, 14, 34, 22
LABEL = 38
"""Longer labels are cut, in characters."""


@dataclass(frozen=True)
class Dot:
    """A value and its interval; `hollow` tells a second value of the row from the first."""

    value: float
    low: float
    high: float
    hollow: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the chart: its label, its values, their text at the right, and the number of its colour."""

    label: str
    dots: Sequence[Dot]
    text: str
    colour: int = 1


@dataclass(frozen=True)
class Placed:
    """A row in the chart's coordinates: (x, from x, to x, hollow) per dot, all at the height `at`."""

    label: str
    full_label: str
    text: str
    colour: int
    at: float
    dots: list[tuple[float, float, float, bool]]


@dataclass(frozen=True)
class IntervalChart:
    """A chart as the template draws it, in the chart's coordinates."""

    title: str
    note: str
    rows: list[Placed]
    x_ticks: list[Tick]
    zero: float | None
    """Where a vertical line marks no difference."""
    legend: tuple[str, str] | None
    """What a full and a hollow dot mean, if there are both."""
    height: float
    bottom: float
    width: int = field(default=WIDTH, init=False)
    left: int = field(default=MARGIN, init=False)
    right: int = field(default=RIGHT, init=False)
    top: int = field(default=FIRST, init=False)


def dot(share: Share, *, hollow: bool = False) -> Dot:
    """A share with its interval as a dot."""
    return Dot(share.accuracy, share.low, share.high, hollow)


def interval_chart(
    title: str,
    rows: Sequence[Row],
    *,
    note: str = "",
    percent: bool = True,
    legend: tuple[str, str] | None = None,
) -> IntervalChart:
    """Lays out a chart.

    Args:
        percent: the values lie in [0, 1] and the axis goes from 0 to 100 %. Otherwise they are differences of such
            values, the axis fits them in percentage points, and a line marks 0.
        legend: what a full and a hollow dot mean.
    """
    assert rows, "a chart without a row"
    ends = [100 * end for row in rows for each in row.dots for end in (each.low, each.high)]
    values = [0.0, 25.0, 50.0, 75.0, 100.0] if percent else nice(min([0.0, *ends]), max([0.0, *ends]))
    names = ["0", "25", "50", "75", "100%"] if percent else texts(values)

    def across(value: float) -> float:
        share = (value - values[0]) / (values[-1] - values[0])
        return round(MARGIN + LEFT / 4 + share * (RIGHT - MARGIN - LEFT / 2), 1)

    placed = []
    for number, row in enumerate(rows):
        dots = [
            (across(100 * each.value), across(100 * each.low), across(100 * each.high), each.hollow)
            for each in row.dots
        ]
        label = row.label if len(row.label) <= LABEL else row.label[: LABEL - 1] + "…"
        placed.append(Placed(label, row.label, row.text, row.colour, FIRST + STEP * number + 12, dots))
    bottom = FIRST + STEP * len(rows)
    ticks = without_overlap([Tick(across(value), text) for value, text in zip(values, names, strict=True)])
    return IntervalChart(title, note, placed, ticks, None if percent else across(0.0), legend, bottom + FOOT, bottom)
