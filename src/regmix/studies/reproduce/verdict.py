"""The verdict on a claim, computed from a paired difference, its error over images and seeds, and the comparisons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from regmix.reports.statistics import ROUNDING, uncertainty

Verdict = Literal["supported", "contradicted", "undecided"]

LEVEL = 0.05
"""Probability that at least one claim of an experiment gets a false verdict, if there is nothing to find."""
POWER = 0.8
"""Probability with which the smallest visible effect would have been seen."""

FEWEST = 3
"""Seeds per method from which a claim can be decided. From two the spread of trainings is known so badly that no effect
of a usual size could be seen."""


@dataclass(frozen=True)
class Error:
    """A standard error, and the degrees of freedom with which it is known."""

    size: float = 0.0
    freedom: float = math.inf


@dataclass(frozen=True)
class Estimate:
    """The mean difference between two sides of a claim, with its two independent errors."""

    difference: float
    images: Error
    """From the choice of the test images; 0 for a number per run."""
    trainings: Error
    """From the seeds; 0 if there is one seed."""
    seeds: int
    """Of the side that has fewer."""


def estimate(first: NDArray[np.float64], second: NDArray[np.float64], *, same_runs: bool) -> Estimate:
    """The first side minus the second, float [seeds, N] each, on the same N images; N is 1 for a number per run.

    With c_i the difference between the sides' means over seeds on image i of N, and s_k the standard deviation over
    the S_k seeds of side k, the squared errors are var(c) / N and s_1^2 / S_1 + s_2^2 / S_2, the latter with Welch's
    degrees of freedom, rounded down. If both sides come from the same runs, they are compared run by run, so that what
    a seed does to both cancels.
    """
    assert first.shape[1] == second.shape[1], "sides on different images"
    assert not same_runs or first.shape == second.shape, "one run more on one side"
    assert np.isfinite([first.sum(), second.sum()]).all(), "a number that is not finite"
    c = first.mean(0) - second.mean(0)
    rounding = ROUNDING * max(abs(first).max(), abs(second).max())
    per_seed = [(first - second).mean(1)] if same_runs else [first.mean(1), second.mean(1)]
    return Estimate(
        float(c.mean()), _error([c], rounding), _error(per_seed, rounding), min(len(first), len(second))
    )  # fmt: skip


def _error(samples: Sequence[NDArray[np.float64]], rounding: float) -> Error:
    """The error of the difference between the means of one or two samples; those of one value have none."""
    size, freedom = uncertainty(samples[0], samples[1:])
    if size <= rounding:
        return Error()  # means of equal numbers differ in their last digit
    return Error(size, math.floor(freedom + 1e-9))  # Welch's estimate, as it is, gives too many false verdicts


@dataclass(frozen=True)
class Judgement:
    """An interval that covers the truth in all comparisons at once with 95 %, and what follows from it."""

    low: float
    high: float
    smallest_effect: float | None
    """The smallest difference from the threshold that this design would have seen with 80 % probability; None if the
    design could not have decided anything."""
    verdict: Verdict
    why: str


def judge(estimate: Estimate, threshold: float, comparisons: int) -> Judgement:
    """Whether the difference is larger than the threshold.

    With the errors of the images and of the seeds, e_1 and e_2, and the critical values t_1 and t_2 of Student's t at
    1 - 0.05 / comparisons with the degrees of freedom of each, the interval reaches sqrt((t_1 e_1)^2 + (t_2 e_2)^2) to
    both sides. So what is known from thousands of images is not judged as if it were known from three seeds. The
    correction is Bonferroni's (Dunn, JASA 56, 1961), for a probability of any false verdict of at most 5 %, however the
    comparisons depend on each other. Holm's method would decide a little more often, but has no interval that agrees
    with it.

    That is a bound for known errors; with those of three seeds it is one by simulation: for 3 and 5 seeds and up to 13
    comparisons the probability is at most 5 % where one side's seeds vary up to twice as much as the other's, and at
    most 7 % whatever they do.

    supported: the whole interval lies above the threshold. contradicted: the whole interval lies below it. undecided:
    neither, or there are fewer than three seeds, or there is no variation at all.
    """
    from scipy.stats import t

    assert comparisons >= 1
    errors = estimate.images, estimate.trainings
    critical = [float(t.isf(LEVEL / comparisons / 2, error.freedom)) for error in errors]
    reach = math.hypot(*(value * error.size for value, error in zip(critical, errors, strict=True)))
    low, high = estimate.difference - reach, estimate.difference + reach
    if estimate.seeds < FEWEST:
        why = (
            "one seed says nothing about another training"
            if estimate.seeds == 1
            else "two seeds: too few to know how much trainings differ"
        )
        return Judgement(low, high, None, "undecided", why)
    if reach == 0:
        why = "nothing varies between images or seeds, so chance is unknown"
        return Judgement(low, high, None, "undecided", why)
    smallest = detectable(critical, errors)
    if low > threshold:
        return Judgement(low, high, smallest, "supported", "the whole interval lies above the threshold")
    if high < threshold:
        return Judgement(low, high, smallest, "contradicted", "the whole interval lies below the threshold")
    return Judgement(low, high, smallest, "undecided", "the interval contains the threshold")


def detectable(critical: Sequence[float], errors: Sequence[Error]) -> float:
    """The true effect that exceeds the reach of the interval with probability `POWER`.

    The measured effect is normal with the errors' total; the reach varies with the estimate of the seeds' error, whose
    square is a chi-squared over its degrees of freedom. The probability is the mean over its quantiles.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm

    images, trainings = errors
    spread = np.ones(1)
    if math.isfinite(trainings.freedom):
        spread = np.sqrt(chi2.ppf((np.arange(2000) + 0.5) / 2000, trainings.freedom) / trainings.freedom)
    reach = np.hypot(critical[0] * images.size, critical[1] * trainings.size * spread)
    total = math.hypot(images.size, trainings.size)
    high = float(reach.max()) + 4 * total
    return float(brentq(lambda effect: norm.sf((reach - effect) / total).mean() - POWER, 0, high))
