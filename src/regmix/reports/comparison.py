"""Methods over several seeds: means, spreads, and which differences are more than chance."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from regmix.reports import words
from regmix.reports.load import LoadedRun, checkpoints
from regmix.reports.statistics import same_examples


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seed."""

    label: str
    runs: list[LoadedRun]

    def values(self, checkpoint: str, column: str) -> list[float]:
        """The accuracy of every run, in the order of the seeds; empty if one of them lacks it."""
        evaluations = [run.evaluations.get(checkpoint) for run in self.runs]
        if any(one is None or column not in one.columns for one in evaluations):
            return []
        return [one.columns[column].accuracy for one in evaluations if one is not None]

    def survives(self, checkpoint: str, column: str) -> NDArray[np.bool_] | None:
        """Which examples survive, bool [seeds, N]; None if a run lacks it or the runs saw different examples."""
        outcomes = [run.outcomes.get(checkpoint) for run in self.runs]
        tables = [one for one in outcomes if one is not None and column in one.survives]
        if len(tables) < len(self.runs) or not all(same_examples(tables[0], one) for one in tables):
            return None
        return np.stack([one.survives[column] for one in tables])


@dataclass(frozen=True)
class Difference:
    """The mean accuracy of the first arm minus that of the second, with its 95 % interval and p-values."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = 1.0


def arms(runs: Sequence[LoadedRun]) -> list[Arm]:
    """Groups runs whose settings differ in nothing but the seed; the order of first appearance is kept."""
    groups: dict[str, list[LoadedRun]] = {}
    for run in runs:
        settings = {name: value for name, value in run.config.items() if name != "seed"}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    firsts = [group[0] for group in groups.values()]
    return [
        Arm(re.sub(r"-seed\d+$", "", label), sorted(group, key=lambda run: run.seed))
        for label, group in zip(words.labels(firsts), groups.values(), strict=True)
    ]


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """(difference, low, high, p) of two methods' mean accuracies on the same N examples, bool [seeds, N] each.

    With c_i the difference of the methods' mean survival of example i, and s the standard deviation of the runs'
    accuracies within a method:

        SE^2 = var(c) / N + s_1^2 / S_1 + s_2^2 / S_2

    that is, the choice of the test images and the seeds of the training. The interval and the two-sided p-value are
    Student's t with Welch's and Satterthwaite's degrees of freedom. A method with a single seed adds no term, and the
    interval then does not cover its seed.
    """
    from scipy.stats import t

    assert first.shape[1] == second.shape[1], "methods on different examples"
    c = first.mean(0) - second.mean(0)
    parts = [(float(c.var(ddof=1)) / len(c), len(c) - 1)]
    for arm in (first, second):
        if len(arm) > 1:
            parts.append((float(arm.mean(1).var(ddof=1)) / len(arm), len(arm) - 1))
    centre, variance = float(c.mean()), sum(part for part, _ in parts)
    if variance == 0:
        return centre, centre, centre, 1.0 if centre == 0 else 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half = float(t.ppf(0.975, freedom)) * error
    return centre, centre - half, centre + half, 2 * float(t.sf(abs(centre) / error, freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for several comparisons (Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def differences(those: Sequence[Arm], checkpoint: str, column: str) -> list[Difference]:
    """Every pair of arms that met this attack on the same examples, with p-values adjusted for their number."""
    found = []
    for one, other in combinations(those, 2):
        first, second = one.survives(checkpoint, column), other.survives(checkpoint, column)
        if first is None or second is None:
            continue
        if same_examples(one.runs[0].outcomes[checkpoint], other.runs[0].outcomes[checkpoint]):
            found.append(Difference(one.label, other.label, *difference(first, second)))
    adjusted = holm([one.p for one in found])
    return [Difference(**{**vars(one), "p_holm": p}) for one, p in zip(found, adjusted, strict=True)]


def as_json(those: Sequence[Arm]) -> dict[str, object]:
    """All of the comparison as plain values, accuracies in [0, 1], seconds and bytes."""
    names = shared_columns(those)
    return {
        "doubts": doubts(those),
        "methods": [
            {
                "label": arm.label,
                "runs": [str(run.path) for run in arm.runs],
                "train_seconds": [run.result.train_seconds for run in arm.runs],
                "peak_memory": [run.result.peak_memory for run in arm.runs],
                "accuracy": {
                    checkpoint: {
                        column: {"mean": float(np.mean(values)), "sd": spread(values), "values": values}
                        for column in columns
                        if (values := arm.values(checkpoint, column))
                    }
                    for checkpoint, columns in names.items()
                },
            }
            for arm in those
        ],
        "differences": {
            checkpoint: {column: [vars(one) for one in differences(those, checkpoint, column)] for column in columns}
            for checkpoint, columns in names.items()
        },
    }


def shared_columns(those: Sequence[Arm]) -> dict[str, list[str]]:
    """Per checkpoint, the columns that every run has; none where the runs met different images."""
    runs = [run for arm in those for run in arm.runs]
    found: dict[str, list[str]] = {}
    for checkpoint in checkpoints(runs[0]):
        evaluations = [run.evaluations.get(checkpoint) for run in runs]
        names = [
            name
            for name in runs[0].evaluations[checkpoint].columns
            if all(one is not None and name in one.columns for one in evaluations)
            and len({one.images for one in evaluations if one is not None}) == 1
        ]
        if names:
            found[checkpoint] = names
    return found


def table(those: Sequence[Arm]) -> list[list[str]]:
    """Rows of text, the header first: per method and checkpoint, every shared column as mean +- deviation in per cent.

    After them the training's seconds and peak memory, means over the seeds.
    """
    names = shared_columns(those)
    columns = list(dict.fromkeys(name for found in names.values() for name in found))
    rows = [["method", "checkpoint", *columns, "training", "peak memory"]]
    for arm in those:
        for number, checkpoint in enumerate(names):
            cells = [cell(arm.values(checkpoint, column)) for column in columns]
            cost = [seconds(arm), memory(arm)] if number == 0 else ["", ""]
            rows.append([arm.label if number == 0 else "", checkpoint, *cells, *cost])
    return rows


def cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation in per cent."""
    if not values:
        return ""
    deviation = spread(values)
    return f"{100 * np.mean(values):.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def seconds(arm: Arm) -> str:
    """The mean time of a training."""
    known = [run.result.train_seconds for run in arm.runs if run.result.train_seconds is not None]
    return words.duration(float(np.mean(known))) if known else ""


def memory(arm: Arm) -> str:
    """The mean peak memory of a training: of the GPU where there was one, else of the whole process."""
    known = [run.result.peak_memory for run in arm.runs if run.result.peak_memory is not None]
    return f"{np.mean(known) / 2**20:.0f} MiB" if known else ""


def summary(those: Sequence[Arm], checkpoint: str, column: str, where: str) -> str:
    """The arms' means under one attack in a sentence."""
    parts = [f"{arm.label} {cell(arm.values(checkpoint, column))}%" for arm in those]
    seeds = sorted({len(arm.runs) for arm in those})
    count = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return f"Test accuracy {where}, {checkpoint} checkpoints, mean and standard deviation over {count}: " + (
        f"{words.listed(parts)}."
    )


def doubts(those: Sequence[Arm]) -> list[str]:
    """What speaks against the numbers of single runs, which a mean hides: masked gradients, failed checks, alarms."""
    found = []
    for arm in those:
        for run in arm.runs:
            who = f"{arm.label}, seed {run.seed}"
            found += [f"{who}: alarm in epoch {alarm.epoch}: {alarm.reason}." for alarm in run.result.alarms]
            found += [f"{who}: {warning}." for warning in run.result.warnings]
            for name, evaluation in run.evaluations.items():
                found += [f"{who}, {name}: before the attacks, {finding}." for finding in evaluation.preflight]
                if evaluation.masking is not None and evaluation.masking.verdict == "masked":
                    signs = "; ".join(evaluation.masking.signs)
                    found.append(f"{who}, {name}: {words.MASKED} {signs}.")
    return found


def difference_lines(those: Sequence[Arm], *, first_only: bool = False) -> list[tuple[str, list[str]]]:
    """A heading and a line per pair of arms, per checkpoint and column; p is adjusted for all the pairs.

    With first_only, only the pairs of the first arm.
    """
    pairs = len(those) * (len(those) - 1) // 2
    covers = "images and seeds" if min(len(arm.runs) for arm in those) > 1 else "images only: one seed"
    return [
        (
            f"{checkpoint}, {column} (95% intervals over {covers}; p adjusted for {pairs} pairs)",
            [_line(one) for one in found if not first_only or one.first == those[0].label],
        )
        for checkpoint, columns in shared_columns(those).items()
        for column in columns
        if (found := differences(those, checkpoint, column))
    ]


def _line(one: Difference) -> str:
    p = "p < 0.001" if one.p_holm < 0.001 else f"p = {one.p_holm:.3f}"
    points = f"{100 * one.difference:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
    return f"{one.first} - {one.second}: {points}, {p}"
