"""Statistics that a report computes from the outcomes of single examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regmix.evaluation import at_every_look, paired, wilson
from regmix.reports.load import Column, Evaluation, LoadedRun, checkpoints, judged_checkpoint
from regmix.threats import same_eps

ROUNDING = 1e-12
"""An error that is smaller, in units of the numbers, is none: means of equal numbers differ in their last digit."""
NORMAL = 5
"""Images below which the normal approximation of a share is not used alone."""


@dataclass(frozen=True)
class Share:
    """A share of examples in [0, 1] and its 95 % Wilson interval."""

    accuracy: float
    low: float
    high: float


def share(correct: int, of: int) -> Share:
    """A share of images with its 95 % Wilson interval."""
    return Share(correct / of, *wilson(correct, of))


def columns_at(evaluation: Evaluation, eps: float) -> dict[str, Column]:
    """The attacks of an evaluation at one radius, by column name, without the clean column."""
    return {name: column for name, column in evaluation.columns.items() if column.eps > 0 and same_eps(column.eps, eps)}


def worst_case(run: LoadedRun, checkpoint: str, eps: float) -> Share | None:
    """The share of images that survive every attack at this radius and at smaller ones; None without outcomes.

    A perturbation within a smaller radius is within this one, too, and so is one that an attack on the distance found.
    Where one rule has chosen the number of images for
    all of these columns, the interval is that of the rule.
    """
    outcomes, evaluation = run.outcomes.get(checkpoint), run.evaluations[checkpoint]
    names = [name for name, column in evaluation.columns.items() if 0 < column.eps <= eps or same_eps(column.eps, eps)]
    if outcomes is None or not names or any(name not in outcomes.survives for name in names):
        return None
    found = [lengths > eps for lengths in run.distances.get(checkpoint, {}).values()]
    survivors = int(np.logical_and.reduce([*(outcomes.survives[name] for name in names), *found]).sum())
    columns, count = [evaluation.columns[name] for name in names], len(outcomes.label)
    if len({(column.within, column.looks) for column in columns}) > 1:
        return share(survivors, count)
    accuracy, within, looks = survivors / count, columns[0].within, columns[0].looks
    if looks:
        return Share(accuracy, *at_every_look(survivors, count, evaluation.subject.sample.of, looks))
    if within is None:
        return share(survivors, count)
    return Share(accuracy, max(0.0, accuracy - within), min(1.0, accuracy + within))


def same_examples(first: LoadedRun, checkpoint: str, second: LoadedRun, other: str) -> bool:
    """Whether the outcomes of two checkpoints are there and about the same test images, through as many passes.

    Positions and labels do not tell: a folder of images and a noisy copy of it have the same ones.
    """
    if not all(
        name in run.outcomes and name in run.evaluations for run, name in ((first, checkpoint), (second, other))
    ):
        return False
    mine, theirs = first.outcomes[checkpoint], second.outcomes[other]
    return (
        first.evaluations[checkpoint].images == second.evaluations[other].images
        and np.array_equal(mine.index, theirs.index)
        and np.array_equal(mine.label, theirs.label)
    )


def radii(runs: Sequence[LoadedRun], attack: str | None = None) -> list[tuple[float, str]]:
    """Every radius above 0 at which these runs were evaluated under this attack (None: any), with its text."""
    pairs: list[tuple[float, str]] = []
    for run in runs:
        for evaluation in run.evaluations.values():
            for column in evaluation.columns.values():
                wanted = column.eps > 0 and attack in (None, column.attack)
                if wanted and not any(same_eps(column.eps, eps) for eps, _ in pairs):
                    pairs.append((column.eps, column.eps_text))
    return sorted(pairs)


def strongest(runs: Sequence[LoadedRun], eps: float) -> str | None:
    """The attack with the lowest mean accuracy at this radius, over all evaluated checkpoints of these runs.

    Only attacks that were run on all of these checkpoints count; if there is none, those that were run on the
    checkpoint by which each run is judged. Of equally strong attacks the last one of the evaluation is taken,
    which in the usual order has the most steps.
    """
    judged = [(run, name) for run in runs if (name := judged_checkpoint(run)) is not None]
    for shown in ([(run, name) for run in runs for name in checkpoints(run)], judged):
        tables = [columns_at(run.evaluations[name], eps) for run, name in shown]
        accuracies = [{column.attack: column.accuracy for column in table.values()} for table in tables]
        if not accuracies:
            return None
        common = [attack for attack in accuracies[0] if all(attack in table for table in accuracies)]
        if common:
            return min(reversed(common), key=lambda attack: sum(table[attack] for table in accuracies))
    return None


def column_of(evaluation: Evaluation | None, attack: str, eps: float) -> tuple[str, Column] | None:
    """The name and the column of an attack at a radius; the radius is ignored for clean."""
    for name, column in (evaluation.columns if evaluation else {}).items():
        if column.attack == attack and (column.eps == 0 or same_eps(column.eps, eps)):
            return name, column
    return None


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], pairs: int = 1
) -> tuple[float, float, float, float]:
    """(difference, low, high, p) of two methods' mean accuracies on the same N examples, bool [seeds, N] each.

    The 95 % interval, within [-1, 1], and the two-sided p-value are Student's t with the error and the degrees of
    freedom of `uncertainty`. A method with a single seed adds no term to the error; the interval then does not cover
    its seed. As one of several pairs it has the degrees of freedom of `freedom_among`. For a seed each, and where
    nothing varies, between images or between seeds, both are about the images alone: Agresti and Min's interval (see
    `paired`) and the exact sign test (McNemar's), which may disagree at the border of 5 %.
    """
    from scipy.stats import binom, t

    assert first.shape[1] == second.shape[1], "methods on different examples"
    c = first.mean(0) - second.mean(0)
    centre = float(c.mean())
    error, freedom = uncertainty(c, [first.mean(1), second.mean(1)])
    freedom = freedom_among(pairs, freedom, len(first) + len(second) - 2)
    if error <= ROUNDING or len(first) == len(second) == 1:
        pair = paired(first[0], second[0])
        fewer, changed = min(pair.gained, pair.lost), pair.gained + pair.lost
        return centre, pair.low, pair.high, min(1.0, 2 * float(binom.cdf(fewer, changed, 0.5)))
    half = float(t.ppf(0.975, freedom)) * error
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return centre, low, high, 2 * float(t.sf(abs(centre) / error, freedom))


def mean(survives: NDArray[np.bool_]) -> tuple[float, float, float]:
    """(mean, low, high) of a method's accuracy over seeds and N examples, bool [seeds, N].

    The 95 % interval is as in `difference`, with the error and the degrees of freedom of `uncertainty`, within [0, 1].
    Where nothing varies it is Wilson's, about the images alone. Near 0 and 1, with fewer than `NORMAL` images expected
    there, an error that is estimated from them means little; the interval then covers Wilson's, too.
    """
    from scipy.stats import t

    centre = float(survives.mean())
    error, freedom = uncertainty(survives.mean(0), [survives.mean(1)])
    if error <= ROUNDING:
        return centre, *wilson(int(survives[0].sum()), survives.shape[1])
    half = float(t.ppf(0.975, freedom)) * error
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    if min(centre, 1 - centre) * survives.shape[1] < NORMAL:
        least, most = wilson(round(centre * survives.shape[1]), survives.shape[1])
        low, high = min(low, least), max(high, most)
    return centre, low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several comparisons by Holm's method (Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def uncertainty(per_example: NDArray[np.float64], per_seed: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a mean difference between two methods.

    With c_i the difference between the methods' means over seeds on example i of N, and s_k the standard deviation of
    the S_k values of method k, one per seed:

        SE^2 = var(c) / N + s_1^2 / S_1 + s_2^2 / S_2

    The first term covers the choice of the test images, the others the seeds of the training. A term with fewer than
    two values is left out. The degrees of freedom are those of Welch and Satterthwaite; infinite if the error is 0.
    """
    samples = [values for values in (per_example, *per_seed) if len(values) > 1]
    parts = [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in samples]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, math.inf
    return math.sqrt(variance), variance**2 / sum(part**2 / degrees for part, degrees in parts)


def freedom_among(comparisons: int, freedom: float, of_seeds: float) -> float:
    """The degrees of freedom by which one of several comparisons is judged: at most those of the seeds.

    Welch's, which are estimated, become large where a few seeds agree by luck. Far in the tail, where one of several
    comparisons is judged, p is then much too small.
    """
    if comparisons == 1 or not of_seeds:  # the second: one seed each, so the error is of images alone
        return freedom
    return min(freedom, of_seeds)
