"""Trains the points of a space, and ranks them by what the validation images say."""

import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from regmix.runs import Run
from regmix.runtime.files import append, parse_json, read_text
from regmix.studies.compare import Planned, reaching_trainings
from regmix.studies.sweep.engines import ENGINES, Engine
from regmix.studies.sweep.space import Axis, Point
from regmix.types import UserError

POINTS = "points.jsonl"


def search(
    engine: Engine,
    axes: Sequence[Axis],
    plan: Callable[[Point], list[Planned]],
    workers: int,
    trials: int,
    folder: Path,
    console: Console,
) -> list[Point]:
    """Trains points until the engine has enough; returns those that are trained, the best first.

    A point's value is the mean over its seeds of the PGD-10 accuracy of the best weights on the validation images.
    Every trained point is a line of points.jsonl. What the trainings say is in a log beside each run.

    Args:
        plan: the runs of a point, one for every seed.
        workers: how many trainings at a time; they share the cores.
        trials: how many points where the space has no end.
    """
    threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None

    def train(point: Point) -> float:
        runs = plan(point)
        for one in runs:
            one.train(quiet=True, log=one.path.with_name(one.path.name + ".log"), threads=threads)
        value = _value(runs)
        assert value is not None, "a training that has ended says what it found"
        if (point, value) not in _points(folder, axes):
            append(folder / POINTS, json.dumps({"point": point, "validation": value}) + "\n")
        return value

    busy: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def told(point: Point) -> float:
        # Two workers may be given the same point.
        with busy[json.dumps(point)]:
            try:
                value = train(point)
            except UserError as error:
                console.print(f"{_text(point)}: {error}", highlight=False, markup=False, soft_wrap=True)
                raise
            line = f"{_text(point)}: PGD-10 on the validation images {value:.1%}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            return value

    for point, _ in _points(folder, axes):
        for one in plan(point):
            one.check()  # another command may have left points that were trained otherwise
    with reaching_trainings():
        ENGINES[engine](axes, train if engine == "ray" else told, workers, trials, folder)
    # What the runs say now: a line of the file may speak of a run that has been deleted or trained anew.
    values = [(point, _value(plan(point))) for point, _ in _points(folder, axes)]
    found = sorted(((point, value) for point, value in values if value is not None), key=lambda pair: -pair[1])
    if not found:
        raise UserError("no point could be trained; see the lines above")
    console.print("\nranked by the validation images:", highlight=False)
    for point, value in found:
        console.print(f"  {value:6.1%}  {_text(point)}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    return [point for point, _ in found]


def _value(runs: Sequence[Planned]) -> float | None:
    """The mean validation accuracy of a point's runs; None unless all of them are trained."""
    results = [Run.open(one.path).result() for one in runs if one.path.exists()]
    values = [one.best_pgd for one in results if one.status in ("finished", "stopped") and one.best_pgd is not None]
    return sum(values) / len(runs) if len(values) == len(runs) else None


def _text(point: Point) -> str:
    return " ".join(f"{flag}={value}" for flag, value in point.items())


def _points(folder: Path, axes: Sequence[Axis]) -> list[tuple[Point, float]]:
    """The trained points of this space; a line that a kill has cut off does not count.

    Only what the space has becomes a flag of a training, so that nobody else's file can choose other flags.
    """
    found: dict[str, tuple[Point, float]] = {}
    path = folder / POINTS
    for line in read_text(path).splitlines() if path.is_file() else []:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            row = parse_json(line, path)
            point, value = row["point"], float(row["validation"])
            if math.isfinite(value) and _lies_in(point, axes):
                found[json.dumps(point)] = point, value
    return [*found.values()]


def _lies_in(point: Point, axes: Sequence[Axis]) -> bool:
    """Whether every axis of the space has the point's value, and the point nothing else."""
    values = [point.get(axis.flag) for axis in axes]
    fits = all(isinstance(value, str) and axis.has(value) for axis, value in zip(axes, values, strict=True))
    return fits and len(point) == len(axes)
