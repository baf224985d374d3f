"""Lays out the loss over one or two planes, side by side with one colour scale; the template draws it as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from regmix.reports.charts import CHARACTER, WIDTH, Tick, nice, texts, without_overlap

LEFT, TOP, SIDE, GAP = 42, 26, 146, 16
HEIGHT = 262
SCALE_TOP, SCALE_HEIGHT = 228, 8
BANDS = 12
"""Shades of the colour scale."""


@dataclass(frozen=True)
class Band:
    """All cells of one panel that have the same shade: an SVG path, and the shade's opacity in (0, 1]."""

    path: str
    opacity: float


@dataclass(frozen=True)
class Panel:
    """One plane: its name, the panel's left edge, its cells, and the ticks of its x axis."""

    label: str
    full_label: str
    left: float
    bands: list[Band]
    x_ticks: list[Tick]


@dataclass(frozen=True)
class Surfaces:
    """The planes as the template draws them, in the chart's coordinates."""

    title: str
    note: str
    x_label: str
    y_label: str
    panels: list[Panel]
    y_ticks: list[Tick]
    scale: list[Band]
    scale_ticks: list[Tick]
    right: int
    width: int = field(default=WIDTH, init=False)
    height: int = field(default=HEIGHT, init=False)
    left: int = field(default=LEFT, init=False)
    top: int = field(default=TOP, init=False)
    side: int = field(default=SIDE, init=False)
    bottom: int = field(default=TOP + SIDE, init=False)
    scale_bottom: int = field(default=SCALE_TOP + SCALE_HEIGHT, init=False)


def surfaces(
    title: str,
    planes: Sequence[tuple[str, Sequence[Sequence[float]]]],
    steps: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    note: str = "",
) -> Surfaces:
    """Lays out one or two planes of equal grids.

    The shades divide the range of the finite values of all planes into equal parts, so that one shade means one loss
    everywhere. Cells without a finite value stay blank, and the note says how many they are.

    Args:
        planes: for each its name and its values [points][points], rows along the second direction, upwards.
        steps: the positions of rows and columns, ascending and evenly spaced.
    """
    assert len(planes) in (1, 2), "at most two side by side"
    assert all(len(rows) == len(steps) and all(len(row) == len(steps) for row in rows) for _, rows in planes)
    values = [value for _, rows in planes for row in rows for value in row]
    finite = [value for value in values if math.isfinite(value)]
    assert finite, "planes without a finite value"
    low, high = min(finite), max(finite)
    high = high if high > low else low + max(abs(low), 1.0)
    if blank := len(values) - len(finite):
        note = f"{note} {blank} of {len(values)} points have no finite value and are blank.".strip()
    edges = [round(SIDE * number / len(steps), 2) for number in range(len(steps) + 1)]
    centre = [(one + other) / 2 for one, other in pairwise(edges)]
    ticks = [(centre[n], f"{round(steps[n], 4) + 0:g}") for n in (0, len(steps) // 2, len(steps) - 1)]
    marks = [value for value in nice(low, high) if low <= value <= high]
    right = LEFT + len(planes) * (SIDE + GAP) - GAP

    def along(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (right - LEFT), 1)

    width = (right - LEFT) / BANDS
    return Surfaces(
        title=title,
        note=note,
        x_label=x_label,
        y_label=y_label,
        panels=[
            Panel(
                label=_short(label),
                full_label=label,
                left=left,
                bands=_bands(rows, edges, left, low, high),
                x_ticks=without_overlap([Tick(round(left + at, 1), text) for at, text in ticks]),
            )
            for (label, rows), left in zip(planes, (LEFT, LEFT + SIDE + GAP), strict=False)
        ],
        y_ticks=[Tick(round(TOP + SIDE - at, 1), text) for at, text in ticks],
        scale=[
            Band(_cell(LEFT + n * width, SCALE_TOP, LEFT + (n + 1) * width, SCALE_TOP + SCALE_HEIGHT), _opacity(n))
            for n in range(BANDS)
        ],
        right=right,
        scale_ticks=without_overlap([Tick(along(v), t) for v, t in zip(marks, texts(marks), strict=True)]),
    )


def _bands(rows: Sequence[Sequence[float]], edges: Sequence[float], left: float, low: float, high: float) -> list[Band]:
    cells: dict[int, list[str]] = {}
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if math.isfinite(value):
                band = min(BANDS - 1, int(BANDS * (value - low) / (high - low)))
                bottom = TOP + SIDE
                cell = _cell(left + edges[j], bottom - edges[i + 1], left + edges[j + 1], bottom - edges[i])
                cells.setdefault(band, []).append(cell)
    return [Band("".join(cells[band]), _opacity(band)) for band in sorted(cells)]


def _cell(x: float, y: float, x_end: float, y_end: float) -> str:
    return f"M{round(x, 2):g} {round(y, 2):g}H{round(x_end, 2):g}V{round(y_end, 2):g}H{round(x, 2):g}z"


def _opacity(band: int) -> float:
    return round(0.04 + 0.96 * band / (BANDS - 1), 3)


def _short(label: str) -> str:
    most = int(SIDE / CHARACTER)
    return label if len(label) <= most else f"{label[: most - 1]}…"
