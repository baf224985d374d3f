"""What a report computes itself from the outcomes of single examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regmix.evaluation import wilson
from regmix.reports.load import Column, Evaluation, LoadedRun, Outcomes, checkpoints, same_eps


@dataclass(frozen=True)
class Share:
    """A share of examples in [0, 1] and its 95 % Wilson interval."""

    accuracy: float
    low: float
    high: float


def columns_at(evaluation: Evaluation, eps: float) -> dict[str, Column]:
    """The attacks of an evaluation at one radius, by column name, without the clean column."""
    return {name: column for name, column in evaluation.columns.items() if column.eps > 0 and same_eps(column.eps, eps)}


def worst_case(outcomes: Outcomes | None, names: Sequence[str]) -> Share | None:
    """The share of examples that survive every one of these columns; None where a column has no outcomes."""
    if outcomes is None or not names or any(name not in outcomes.survives for name in names):
        return None
    survivors = int(np.logical_and.reduce([outcomes.survives[name] for name in names]).sum())
    return Share(survivors / len(outcomes.label), *wilson(survivors, len(outcomes.label)))


def same_examples(first: Outcomes, second: Outcomes) -> bool:
    """Whether two tables speak of the same test examples, as far as positions and labels can tell."""
    return np.array_equal(first.index, second.index) and np.array_equal(first.label, second.label)


def radii(runs: Sequence[LoadedRun], attack: str | None = None) -> list[tuple[float, str]]:
    """Every radius above 0 at which some checkpoint of these runs met this attack (None: any), with its text."""
    found: list[tuple[float, str]] = []
    for run in runs:
        for evaluation in run.evaluations.values():
            for column in evaluation.columns.values():
                wanted = column.eps > 0 and attack in (None, column.attack)
                if wanted and not any(same_eps(column.eps, eps) for eps, _ in found):
                    found.append((column.eps, column.eps_text))
    return sorted(found)


def strongest(runs: Sequence[LoadedRun], eps: float) -> str | None:
    """The attack that leaves the lowest mean accuracy at this radius over all evaluated checkpoints of these runs.

    Only attacks count that every one of these checkpoints met. Of equally strong ones the last one in the order of the
    evaluation is taken, which is the one with the most steps in the usual order.
    """
    tables = [columns_at(run.evaluations[name], eps) for run in runs for name in checkpoints(run)]
    accuracies = [{column.attack: column.accuracy for column in table.values()} for table in tables]
    if not accuracies:
        return None
    common = [attack for attack in accuracies[0] if all(attack in table for table in accuracies)]
    return min(reversed(common), key=lambda attack: sum(table[attack] for table in accuracies), default=None)


def column_of(evaluation: Evaluation | None, attack: str, eps: float) -> tuple[str, Column] | None:
    """The column of an attack at a radius (any radius for clean), and its name."""
    for name, column in (evaluation.columns if evaluation else {}).items():
        if column.attack == attack and (column.eps == 0 or same_eps(column.eps, eps)):
            return name, column
    return None
