"""Lays out line charts: the positions of lines, ticks and texts, which the template draws as SVG.

A chart is 360 units wide, about the width of a phone in pixels, so that its text has the same size everywhere.
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
"""Number of colours in the style sheet; the first is neutral, the others distinguish lines."""

Dash = Literal["solid", "dashed", "dotted"]
DASHES: tuple[Dash, ...] = get_args(Dash)


@dataclass(frozen=True)
class Series:
    """One line of a chart: its points and its style. Points that are not finite are left out.

    Attributes:
        value: text beside the label in the legend, such as the last value.
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
    """A vertical line with a text, such as the best epoch."""

    x: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: its position in the chart's coordinates, and its text."""

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
    """A chart as the template draws it, in the chart's coordinates."""

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
    """Lays out a chart.

    Args:
        percent: the values are in [0, 1], and the y axis goes from 0 to 100 %. Otherwise the axis fits the values and
            includes 0.
        x_ticks: positions and texts; empty means whole numbers. Texts that would overlap are left out.
        x_range: values that the x axis includes even if no point is there.
        mark: a vertical line.
    """
    series = [_finite(line) for line in series]
    xs = [x for line in series for x in line.xs] + [x for x, _ in x_ticks] + list(x_range)
    ys = [y for line in series for y in line.ys]
    assert xs, "a chart without a point"
    # Whiskers at the same x stand side by side, which needs room at both ends of the axis.
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
        shift = min(3.0, 18 / len(series)) * (number - (len(series) - 1) / 2) if line.intervals else 0.0
        points = [
            (round(min(max(across(x) + shift, LEFT), RIGHT), 1), up(y)) for x, y in zip(line.xs, line.ys, strict=True)
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
    """The numbers as texts, all with as many decimals as one of them needs at most."""
    needed = [f"{value:.10f}".rstrip("0").partition(".")[2] for value in values]
    decimals = max(len(digits) for digits in needed)
    return [f"{value:.{decimals}f}" if value else "0" for value in values]


def without_overlap(ticks: Sequence[Tick]) -> list[Tick]:
    """The same ticks, without the texts that would touch the text to their left."""
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
