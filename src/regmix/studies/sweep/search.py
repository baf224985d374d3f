"""Trains the points of a search space and ranks them by their validation accuracy."""

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
    """Trains points until the engine has enough; returns all trained points, the best first.

    The value of a point is the PGD-10 accuracy of the best weights on the validation images, averaged over its seeds.
    Every trained point is written to a line of points.jsonl. The output of each training is in a log beside its run.

    Args:
        plan: returns the runs of a point, one for each seed.
        workers: how many trainings to run at a time; they share the cores.
        trials: how many points to train if the space has a range.

    Raises:
        UserError: a point was trained with other settings before, or no point could be trained.
    """
    threads = max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None

    def train(point: Point) -> float:
        runs = plan(point)
        for run in runs:
            run.train(quiet=True, log=run.path.with_name(run.path.name + ".log"), threads=threads)
        value = _value(runs)
        assert value is not None, "a finished training has a validation accuracy"
        if (point, value) not in _points(folder, axes):
            append(folder / POINTS, json.dumps({"point": point, "validation": value}) + "\n")
        return value

    locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def train_and_print(point: Point) -> float:
        # The engine may give the same point to two workers.
        with locks[json.dumps(point)]:
            try:
                value = train(point)
            except UserError as error:
                console.print(f"{_text(point)}: {error}", highlight=False, markup=False, soft_wrap=True)
                raise
            line = f"{_text(point)}: PGD-10 on the validation images {value:.1%}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            return value

    for point, _ in _points(folder, axes):
        for run in plan(point):
            run.check()  # an earlier command may have trained the point with other settings
    with reaching_trainings():
        ENGINES[engine](axes, train if engine == "ray" else train_and_print, workers, trials, folder)
    # Read the values from the runs: a run in the file may have been deleted or trained again.
    values = [(point, _value(plan(point))) for point, _ in _points(folder, axes)]
    ranked = sorted(((point, value) for point, value in values if value is not None), key=lambda pair: -pair[1])
    if not ranked:
        raise UserError("no point could be trained; see the lines above")
    console.print("\nranked by accuracy on the validation images:", highlight=False)
    for point, value in ranked:
        console.print(f"  {value:6.1%}  {_text(point)}", highlight=False, markup=False, soft_wrap=True)
    console.print()
    return [point for point, _ in ranked]


def _value(runs: Sequence[Planned]) -> float | None:
    """The mean validation accuracy of a point's runs; None unless all of them are trained."""
    results = [Run.open(run.path).result() for run in runs if run.path.exists()]
    done = [result for result in results if result.status in ("finished", "stopped")]
    values = [result.best_pgd for result in done if result.best_pgd is not None]
    return sum(values) / len(runs) if len(values) == len(runs) else None


def _text(point: Point) -> str:
    return " ".join(f"{flag}={value}" for flag, value in point.items())


def _points(folder: Path, axes: Sequence[Axis]) -> list[tuple[Point, float]]:
    """The trained points of this space, as points.jsonl has them. Damaged lines are skipped.

    Points that are not in the space are skipped too, so that a file from somebody else cannot set other flags.
    """
    trained: dict[str, tuple[Point, float]] = {}
    path = folder / POINTS
    for line in read_text(path).splitlines() if path.is_file() else []:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            row = parse_json(line, path)
            point, value = row["point"], float(row["validation"])
            if math.isfinite(value) and _lies_in(point, axes):
                trained[json.dumps(point)] = point, value
    return [*trained.values()]


def _lies_in(point: Point, axes: Sequence[Axis]) -> bool:
    """Whether the point has a value of every axis of the space, and nothing else."""
    values = [point.get(axis.flag) for axis in axes]
    fits = all(isinstance(value, str) and axis.has(value) for axis, value in zip(axes, values, strict=True))
    return fits and len(point) == len(axes)
