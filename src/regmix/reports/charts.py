"""Line charts as geometry: where every line, tick and word goes, for the template to draw as SVG.

A chart is 360 units wide, about as many pixels as a phone has, so that its text has the same size everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 26, 196
DOTS_UP_TO = 12
CHARACTER = 6.6
"""Width of a character of the axis text."""

COLOURS = 8
"""How many colours the style sheet has; the first is for neutral lines, the others tell things apart."""

Dash = Literal["solid", "dashed", "dotted"]
DASHES: tuple[Dash, ...] = get_args(Dash)


@dataclass(frozen=True)
class Series:
    """One line: its points (those that are not finite are left out), and its look.

    Attributes:
        value: what the legend says beside the label, such as the last value.
        intervals: (low, high) per point, drawn as whiskers.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int
    dash: Dash = "solid"
    value: str = ""
    intervals: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Mark:
    """A vertical line with a word, such as the best epoch."""

    x: float
    text: str


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A series in the chart's coordinates."""

    points: str
    colour: int
    dash: Dash
    dots: list[tuple[float, float]]
    whiskers: list[tuple[float, float, float]]


@dataclass(frozen=True)
class Chart:
    """What the template draws, in the coordinates of the drawing."""

    title: str
    note: str
    x_label: str
    series: list[Series]
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    mark: Mark | None = None
    mark_anchor: str = "start"
    width: int = field(default=WIDTH, init=False)
    height: int = field(default=HEIGHT, init=False)
    left: int = field(default=LEFT, init=False)
    right: int = field(default=RIGHT, init=False)
    top: int = field(default=TOP, init=False)
    bottom: int = field(default=BOTTOM, init=False)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    note: str = "",
    percent: bool = False,
    x_ticks: Sequence[tuple[float, str]] = (),
    x_range: Sequence[float] = (),
    mark: Mark | None = None,
) -> Chart:
    """Lays a chart out.

    Args:
        percent: the values lie in [0, 1] and the axis goes from 0 to 100 %; otherwise it fits the values and
            includes 0.
        x_ticks: positions and texts; none means whole numbers. Texts that would overlap are left out.
        x_range: values that the x axis has to show even where no point is.
        mark: a vertical line.
    """
    series = [_finite(line) for line in series]
    xs = [x for line in series for x in line.xs] + [x for x, _ in x_ticks] + list(x_range)
    ys = [y for line in series for y in line.ys]
    assert xs, "a chart without a point"
    # Whiskers at the same x stand side by side, for which the ends need room.
    room = 0.5 if min(xs) == max(xs) else 0.04 * (max(xs) - min(xs)) if any(line.intervals for line in series) else 0.0
    x_low, x_high = min(xs) - room, max(xs) + room
    if percent:
        y_values, y_texts = [0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100%"]
    else:
        y_values = nice(min([0.0, *ys]), max([0.0, *ys]))
        y_texts = texts(y_values)
    whole = nice(math.ceil(x_low), math.floor(x_high), count=6, whole=True)
    ticks = list(x_ticks) or [(x, f"{x:g}") for x in whole if x_low <= x <= x_high]

    def across(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (RIGHT - LEFT), 1)

    def up(y: float) -> float:
        low, high = y_values[0], y_values[-1]
        return round(BOTTOM - (y - low) / (high - low) * (BOTTOM - TOP), 1)

    lines = []
    for number, line in enumerate(series):
        aside = min(3.0, 18 / len(series)) * (number - (len(series) - 1) / 2) if line.intervals else 0.0
        points = [
            (round(min(max(across(x) + aside, LEFT), RIGHT), 1), up(y)) for x, y in zip(line.xs, line.ys, strict=True)
        ]
        lines.append(
            Line(
                points=" ".join(f"{x:g},{y:g}" for x, y in points),
                colour=line.colour,
                dash=line.dash,
                dots=points if len(points) <= DOTS_UP_TO else [],
                whiskers=[(x, up(low), up(high)) for (x, _), (low, high) in zip(points, line.intervals, strict=False)],
            )
        )
    return Chart(
        title=title,
        note=note,
        x_label=x_label,
        series=series,
        lines=lines,
        x_ticks=without_overlap([Tick(across(x), text) for x, text in ticks]),
        y_ticks=[Tick(up(y), text) for y, text in zip(y_values, y_texts, strict=True)],
        mark=Mark(across(mark.x), mark.text) if mark else None,
        mark_anchor="end" if mark and across(mark.x) > (LEFT + RIGHT) / 2 else "start",
    )


def nice(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """About `count` round numbers whose range covers [low, high]."""
    span = max(high - low, 1e-12) if high > low else max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * count >= span * (1 - 1e-9))
    if whole:
        step = max(1.0, step if step != 2.5 else 5.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(max(high, low + step) / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def texts(values: Sequence[float]) -> list[str]:
    """Numbers with as many decimals as the finest of them needs."""
    needed = [f"{value:.10f}".rstrip("0").partition(".")[2] for value in values]
    decimals = max(len(digits) for digits in needed)
    return [f"{value:.{decimals}f}" if value else "0" for value in values]


def without_overlap(ticks: Sequence[Tick]) -> list[Tick]:
    """The same ticks; the text of one that would touch its left neighbour's is empty."""
    kept, end = [], -math.inf
    for tick in ticks:
        half = len(tick.text) * CHARACTER / 2
        clear = tick.at - half > end + 4
        kept.append(tick if clear else Tick(tick.at, ""))
        end = tick.at + half if clear else end
    return kept


def _finite(line: Series) -> Series:
    kept = [number for number, y in enumerate(line.ys) if math.isfinite(y)]
    return Series(
        line.label,
        [line.xs[number] for number in kept],
        [line.ys[number] for number in kept],
        line.colour,
        line.dash,
        line.value,
        [line.intervals[number] for number in kept] if line.intervals else (),
    )
