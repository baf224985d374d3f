"""Trains the points of a search space and ranks them by their validation accuracy."""

import json
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from regmix.reports.sweep import MEASURES, trial, write_sweep
from regmix.runs import Run
from regmix.runs.records import validated
from regmix.runtime.files import append, parse_json, read_text
from regmix.studies.sweep.engines import ENGINES, Budget, Engine
from regmix.studies.sweep.space import Axis, Point
from regmix.studies.trainings import Planned, Watch, reaching_trainings, say, threads_of_each
from regmix.types import UserError, require

POINTS = "points.jsonl"
MIXED = (
    "standard training is ranked by accuracy without an attack, other methods by accuracy under PGD-10; sweep them in "
    "two commands"
)


@dataclass(frozen=True)
class Tried:
    """A point of the space with its runs, one for each seed, and what came out."""

    point: Point
    runs: list[Planned]
    values: list[float]
    """Accuracy of the best weights on the validation images, by seed; empty unless all seeds were trained.

    It is the one by which the method chooses them: under PGD-10, for standard training without an attack.
    """

    @property
    def text(self) -> str:
        """The point as flags."""
        return " ".join(f"{flag}={value}" for flag, value in self.point.items())

    @property
    def value(self) -> float | None:
        """The mean over the seeds, by which points are ranked; None unless all seeds were trained to the end."""
        return sum(self.values) / len(self.values) if self.values else None

    @property
    def left(self) -> list[str]:
        """The names of the runs that are not trained to the end."""
        return [run.path.name for run in self.runs if not run.is_finished]


def search(
    engine: Engine,
    axes: Sequence[Axis],
    plan: Callable[[Point], list[Planned]],
    budget: Budget,
    folder: Path,
    console: Console,
) -> list[Tried]:
    """Trains points until the engine has enough; returns all points, the best first, those that are not complete last.

    The value of a point is the accuracy of the best weights on the validation images, averaged over its seeds: under
    PGD-10, for standard training without an attack.
    Every point is written to a line of points.jsonl. The output of each training is in a log beside its run.

    Args:
        plan: returns the runs of a point, one for each seed.

    Raises:
        UserError: a point was trained with other settings before, no point could be trained, or some points are of
            standard training and others are not.
    """
    threads, measures = threads_of_each(budget.workers), set[str]()

    def planned(point: Point) -> list[Planned]:
        runs = plan(point)
        require(measures <= {_measure(runs)}, MIXED)  # before it is added: another thread may be at work
        measures.add(_measure(runs))
        return runs

    def train(point: Point, watch: Watch | None) -> float | None:
        runs = planned(point)
        for number, run in enumerate(runs):
            log = run.path.with_name(run.path.name + ".log")
            if not run.train(quiet=True, log=log, threads=threads, watch=watch if number == 0 else None):
                append(folder / POINTS, json.dumps({"point": point, "validation": None}) + "\n")
                return None
        value = Tried(point, runs, _values(runs)).value
        assert value is not None, "a finished training has a validation accuracy"
        if (point, value) not in _points(folder, axes):
            append(folder / POINTS, json.dumps({"point": point, "validation": value}) + "\n")
        return value

    locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def train_and_print(point: Point, watch: Watch | None) -> float | None:
        # The engine may give the same point to two workers.
        with locks[json.dumps(point)]:
            text = Tried(point, [], []).text
            try:
                value = train(point, watch)
            except UserError as error:
                say(console, f"{text}: {error}")
                raise
            (measure,) = measures
            result = "ended early" if value is None else f"{MEASURES[measure]} on the validation images {value:.1%}"
            say(console, f"{text}: {result}")
            return value

    for point, _ in _points(folder, axes):
        for run in planned(point):
            run.check()  # an earlier command may have trained the point with other settings
    with reaching_trainings():
        ENGINES[engine](axes, train if engine == "ray" else train_and_print, budget, folder)
    # Read the values from the runs: a run in the file may have been deleted or trained again.
    tried = [Tried(point, runs, _values(runs)) for point, _ in _points(folder, axes) if (runs := plan(point))]
    there = [each for each in tried if each.runs[0].path.exists()]
    ranked = sorted(there, key=lambda each: -math.inf if each.value is None else each.value, reverse=True)
    if not ranked or ranked[0].value is None:
        raise UserError("no point could be trained; see the lines above")
    (measure,) = measures
    console.print(f"\nranked by {MEASURES[measure]} on the validation images:", highlight=False)
    for each in ranked:
        left = f" (left: {', '.join(each.left)})" if each.value is None else ""
        say(console, f"  {'not complete' if each.value is None else f'{each.value:.1%}':>12}  {each.text}{left}")
    console.print()
    return ranked


def write_page(recipe: str, tried: Sequence[Tried], tested: Sequence[Tried], folder: Path) -> None:
    """Writes sweep.html and sweep.json: all points, and which of them met the test images."""
    data = Run.open(tried[0].runs[0].path).data()
    assert data is not None, "a trained run has the fingerprint of its images"
    images, measure = data.validation.images, _measure(tried[0].runs)
    trials = [
        trial(
            each.point, [run.path for run in each.runs], each.values, each.left,
            validated(Run.open(each.runs[0].path).metrics(), measure), images, tested=each in tested,
        )
        for each in tried
    ]  # fmt: skip
    write_sweep(recipe, trials, images, folder, measure)


def _values(runs: Sequence[Planned]) -> list[float]:
    """The validation accuracies of a point's runs; empty unless all of them are trained."""
    results = [Run.open(run.path).result() for run in runs if run.path.exists()]
    done = [result for result in results if result.is_complete]
    found = [result.best_pgd if _measure(runs) == "pgd" else result.best_clean for result in done]
    values = [value for value in found if value is not None]
    return values if len(values) == len(runs) else []


def _measure(runs: Sequence[Planned]) -> Literal["pgd", "clean"]:
    """The accuracy by which the method of a point chooses its best weights."""
    return runs[0].experiment.method.chosen_by


def _points(folder: Path, axes: Sequence[Axis]) -> list[tuple[Point, float | None]]:
    """The points of this space, as points.jsonl has them; None for those ended early. Damaged lines are skipped.

    Points that are not in the space are skipped too, so that a file from somebody else cannot set other flags.
    """
    trained: dict[str, tuple[Point, float | None]] = {}
    path = folder / POINTS
    for line in read_text(path).splitlines() if path.is_file() else []:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            row = parse_json(line, path)
            point, value = row["point"], row["validation"] if row["validation"] is None else float(row["validation"])
            if (value is None or math.isfinite(value)) and _lies_in(point, axes):
                trained[json.dumps(point)] = point, value
    return [*trained.values()]


def _lies_in(point: Point, axes: Sequence[Axis]) -> bool:
    """Whether the point has a value of every axis of the space, and nothing else."""
    values = [point.get(axis.flag) for axis in axes]
    fits = all(isinstance(value, str) and axis.has(value) for axis, value in zip(axes, values, strict=True))
    return fits and len(point) == len(axes)
