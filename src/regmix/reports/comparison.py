"""Compares methods over several seeds: means, standard deviations, and significance of differences."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from regmix.reports import remarks, words
from regmix.reports.load import LoadedRun, checkpoints
from regmix.reports.statistics import difference, holm, same_examples, spread
from regmix.runs.alike import told_apart


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in their seed."""

    label: str
    runs: list[LoadedRun]

    def values(self, checkpoint: str, column: str) -> list[float]:
        """The accuracy of every run, in the order of the seeds; empty if a run lacks it."""
        evaluations = [run.evaluations.get(checkpoint) for run in self.runs]
        if any(evaluation is None or column not in evaluation.columns for evaluation in evaluations):
            return []
        return [evaluation.columns[column].accuracy for evaluation in evaluations if evaluation is not None]

    def survives(self, checkpoint: str, column: str) -> NDArray[np.bool_] | None:
        """Which examples survive, bool [seeds, N]; None if a run lacks it or the runs saw different examples."""
        outcomes = [run.outcomes.get(checkpoint) for run in self.runs]
        tables = [table for table in outcomes if table is not None and column in table.survives]
        first = self.runs[0]
        alike = all(same_examples(first, checkpoint, run, checkpoint) for run in self.runs)
        if len(tables) < len(self.runs) or not alike:
            return None
        return np.stack([table.survives[column] for table in tables])


@dataclass(frozen=True)
class Difference:
    """The mean accuracy of the first arm minus that of the second, with its 95 % interval and p-values.

    The interval and p are about this pair alone. p_holm is adjusted for all pairs by Holm's method, after each p was
    computed with at most the degrees of freedom of the seeds; see `freedom_among`.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = 1.0


def arms(runs: Sequence[LoadedRun]) -> list[Arm]:
    """Groups the seeds of one experiment, in the order of first appearance.

    These are runs whose settings differ only in the seed, and that no record of them tells apart; see `told_apart`. A
    model from elsewhere stands alone, because its settings do not say how it was trained, and so does a second run with
    the same seed, which is no further seed.
    """
    groups: list[list[LoadedRun]] = []
    for run in runs:
        for group in groups:
            alike = all(_same_settings(other, run) and not told_apart(other, run) for other in group)
            if alike and run.seed not in {other.seed for other in group}:
                group.append(run)
                break
        else:
            groups.append([run])
    # The guard may have changed the method of some seeds; those with the method of the settings give the name.
    firsts = [min(group, key=lambda run: bool(words.methods_text(run))) for group in groups]
    return [
        Arm(re.sub(r"-seed\d+$", "", label), sorted(group, key=lambda run: run.seed))
        for label, group in zip(words.labels(firsts), groups, strict=True)
    ]


def _same_settings(first: LoadedRun, second: LoadedRun) -> bool:
    known = first.source is None and second.source is None
    return known and {**first.config, "seed": 0} == {**second.config, "seed": 0}


def no_seeds(those: Sequence[Arm]) -> list[str]:
    """A sentence for every two methods that would be one, but for what the records of their runs say."""
    return [
        f"{second.path} is no further seed of {first.path}: {why}."
        for (first, *_), (second, *_) in combinations([arm.runs for arm in those], 2)
        if _same_settings(first, second) and (why := told_apart(first, second)) is not None
    ]


def differences(those: Sequence[Arm], checkpoint: str, column: str) -> list[Difference]:
    """The difference of every pair of arms evaluated on the same examples, with p-values adjusted for their number."""
    raw, tables = [], []
    for arm, other in combinations(those, 2):
        first, second = arm.survives(checkpoint, column), other.survives(checkpoint, column)
        if first is None or second is None:
            continue
        if same_examples(arm.runs[0], checkpoint, other.runs[0], checkpoint):
            raw.append(Difference(arm.label, other.label, *difference(first, second)))
            tables.append((first, second))
    adjusted = holm([difference(first, second, len(tables))[3] for first, second in tables])
    return [replace(pair, p_holm=p) for pair, p in zip(raw, adjusted, strict=True)]


def as_json(those: Sequence[Arm]) -> dict[str, object]:
    """The whole comparison as plain values: accuracies in [0, 1], times in seconds, memory in bytes."""
    names = shared_columns(those)
    return {
        "images": remarks.samples([run for arm in those for run in arm.runs]),
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
            checkpoint: {column: [vars(pair) for pair in differences(those, checkpoint, column)] for column in columns}
            for checkpoint, columns in names.items()
        },
    }


def shared_columns(those: Sequence[Arm]) -> dict[str, list[str]]:
    """Per checkpoint, the columns that every run has; none if the runs were evaluated on different images.

    In different norms a column under attack is not the same one, though it has the same name.
    """
    runs = [run for arm in those for run in arm.runs]
    columns: dict[str, list[str]] = {}
    one_norm = len({run.norm for run in runs}) == 1
    for checkpoint in checkpoints(runs[0]):
        evaluations = [run.evaluations.get(checkpoint) for run in runs]
        names = [
            name
            for name, column in runs[0].evaluations[checkpoint].columns.items()
            if (one_norm or column.eps == 0)
            and all(evaluation is not None and name in evaluation.columns for evaluation in evaluations)
            and len({evaluation.images for evaluation in evaluations if evaluation is not None}) == 1
        ]
        if names:
            columns[checkpoint] = names
    return columns


def table(those: Sequence[Arm]) -> list[list[str]]:
    """Rows of text, the header first: per method and checkpoint, every shared column as mean ± deviation in per cent.

    The last two columns are the time and the peak memory of a training, means over the seeds.
    """
    names = shared_columns(those)
    columns = list(dict.fromkeys(name for shared in names.values() for name in shared))
    rows = [["method", "checkpoint", *columns, "training", "peak memory"]]
    for arm in those:
        for number, checkpoint in enumerate(names):
            cells = [cell(arm.values(checkpoint, column)) for column in columns]
            cost = [seconds(arm), memory(arm)] if number == 0 else ["", ""]
            rows.append([arm.label if number == 0 else "", checkpoint, *cells, *cost])
    return rows


def cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation in per cent, such as "51.2 ± 0.3"."""
    if not values:
        return ""
    deviation = spread(values)
    return f"{100 * np.mean(values):.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def seconds(arm: Arm) -> str:
    """The mean time of a training, as text."""
    known = [run.result.train_seconds for run in arm.runs if run.result.train_seconds is not None]
    return words.duration(float(np.mean(known))) if known else ""


def memory(arm: Arm) -> str:
    """The mean peak memory of a training, as text: of the GPU if there was one, else of the process."""
    known = [run.result.peak_memory for run in arm.runs if run.result.peak_memory is not None]
    return f"{np.mean(known) / 2**20:.0f} MiB" if known else ""


def summary(those: Sequence[Arm], checkpoint: str, column: str, where: str) -> str:
    """A sentence with the mean accuracy of every arm under one attack."""
    parts = [f"{arm.label} {cell(arm.values(checkpoint, column))}%" for arm in those]
    seeds = sorted({len(arm.runs) for arm in those})
    count = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return f"Test accuracy {where}, {checkpoint} checkpoints, mean and standard deviation over {count}: " + (
        f"{words.listed(parts)}."
    )


def doubts(those: Sequence[Arm]) -> list[str]:
    """Reasons to doubt single runs, which a mean would hide, and which runs are no seeds of one experiment."""
    return no_seeds(those) + [
        text for arm in those for run in arm.runs for text in doubts_about(run, f"{arm.label}, seed {run.seed}")
    ]


def doubts_about(run: LoadedRun, which: str) -> list[str]:
    """Masked gradients, failed checks, alarms and warnings of a run; `which` names it."""
    lines = [
        f"{which}: alarm in epoch {alarm.epoch}: {alarm.reason}. {reaction}".strip()
        for alarm, reaction in zip(run.result.alarms, words.reactions(run), strict=True)
    ]
    if methods := words.methods_text(run):
        lines.append(f"{which}: the guard changed the method; it was trained with {methods}.")
    if run.result.status == "stopped":
        lines.append(f"{which}: {words.status_text(run)}")
    lines += [f"{which}: {warning}." for warning in run.result.warnings]
    for name, evaluation in run.evaluations.items():
        lines += [f"{which}, {name}: before the attacks, {finding}." for finding in evaluation.preflight]
        if evaluation.masking is not None and evaluation.masking.verdict == "masked":
            lines.append(f"{which}, {name}: {words.MASKED} {'; '.join(evaluation.masking.signs)}.")
    return lines


def covered(those: Sequence[Arm]) -> str:
    """What the intervals of differences between these methods are about."""
    single = [f"{arm.label} (seed {arm.runs[0].seed})" for arm in those if len(arm.runs) == 1]
    if not single:
        return "images and seeds"
    if len(single) == len(those):
        return "images only: one seed"
    return f"images, and the seeds of all but {words.listed(single)}"


def difference_lines(those: Sequence[Arm], *, first_only: bool = False) -> list[tuple[str, list[str]]]:
    """For every checkpoint and column, a heading and a line per pair of arms.

    Interval and p are about the pair alone; among several pairs, p is also stated adjusted for their number. With
    `first_only`, only the pairs with the first arm are listed.
    """
    pairs = len(those) * (len(those) - 1) // 2
    return [
        (
            f"{checkpoint}, {column} (95% intervals over {covered(those)})",
            [_line(pair, pairs) for pair in compared if not first_only or pair.first == those[0].label],
        )
        for checkpoint, columns in shared_columns(those).items()
        for column in columns
        if (compared := differences(those, checkpoint, column))
    ]


def _line(pair: Difference, pairs: int) -> str:
    alone, among = ("< 0.001" if p < 0.001 else f"= {p:.3f}" for p in (pair.p, pair.p_holm))
    points = f"{100 * pair.difference:+.1f} points [{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]"
    adjusted = f", adjusted for {pairs} pairs {among}" if pairs > 1 else ""
    return f"{pair.first} - {pair.second}: {points}, p {alone}{adjusted}"
