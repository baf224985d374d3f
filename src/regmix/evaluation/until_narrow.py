"""Evaluates more and more images until the intervals are narrow enough; see `sequential`."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from regmix.data import draw
from regmix.evaluation.checkpoint import CheckpointEvaluation
from regmix.evaluation.sequential import Rule, at_every_look
from regmix.evaluation.subject import EvaluationImages

T = TypeVar("T")
Tables = Sequence[Mapping[str, Tensor]]
"""Which images survive, by column, for each of several models."""


def fill_until_narrow(
    evaluations: Sequence[CheckpointEvaluation],
    test: EvaluationImages,
    within: float,
    seed: int,
    *,
    paired: bool = False,
) -> str:
    """Fills the tables of all evaluations with the same images until the rule says stop; says how many it took.

    Args:
        test: the whole split.
        seed: of the stratified order in which the images are taken.
        paired: the first half of the evaluations is compared with the second half, and only these differences must be
            narrow.
    """
    labels = test.images.labels
    rule = Rule(len(labels), len(test.images.classes), within)
    looks, before = rule.looks(), torch.zeros(len(labels), dtype=torch.bool)
    for count in looks:
        sample, rows = draw(labels, count, "stratified", seed)
        fresh = rows[~before[rows]]
        before[rows] = True
        for evaluation in evaluations:
            evaluation.fill(fresh, last=False)
        tables = [evaluation.survives(rows) for evaluation in evaluations]
        if differences_narrow(rule, tables) if paired else columns_narrow(rule, tables):
            break

    def rare(correct: int, count: int) -> tuple[float, float]:
        """Valid at every look at once, because the differences decide when to stop, not this column."""
        return at_every_look(correct, count, rule.total, len(looks))

    what = "difference between the runs" if paired else "column and the worst case"
    text = (
        f"{count:,} of {rule.total:,} test images: chosen by a rule (--within {100 * within:g}) that ends when the 95% "
        f"interval of every {what} is at most {100 * within:g} points wide to each side; the intervals are about the "
        "accuracy on the whole test split"
    )
    interval, promised, looked = (rare, None, len(looks)) if paired else (rule.interval, within, 0)
    for evaluation in evaluations:
        evaluation.settle(rows, sample, interval, text, promised, looked)
    return text


def columns_narrow(rule: Rule, tables: Tables) -> bool:
    """Whether every column of every model is known well enough."""
    return all(rule.is_narrow(int(column.sum()), len(column)) for table in tables for column in table.values())


def differences_narrow(rule: Rule, tables: Tables) -> bool:
    """Whether the difference of every column between the first half of the models and the second is."""
    return all(
        rule.is_narrow_difference(int((mine & ~theirs).sum()), int((theirs & ~mine).sum()), len(mine))
        for table, other in halves(tables)
        for mine, theirs in ((table[name], other[name]) for name in table)
    )


def halves(values: Sequence[T]) -> list[tuple[T, T]]:
    """The values of the first half, each with its counterpart in the second half."""
    return [*zip(values[: len(values) // 2], values[len(values) // 2 :], strict=True)]
