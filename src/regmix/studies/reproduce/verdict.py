"""The verdict on a claim, computed from a paired difference, its error over images and seeds, and the comparisons."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from regmix.reports.statistics import freedom_among, uncertainty

Verdict = Literal["supported", "contradicted", "undecided"]

LEVEL = 0.05
"""Probability that at least one of a command's claims gets a false verdict, if there is nothing to find."""
POWER = 0.8
"""Probability with which the smallest visible effect would have been seen."""

ROUNDING = 1e-12
"""An error that is smaller, in units of the numbers, is none."""
FEWEST = 3
"""Seeds per method from which a claim can be decided. With two, Welch's degrees of freedom are estimated so badly that
simulated commands without any difference gave a false verdict in 10 % of cases instead of 5 %; with three in 5 %."""


@dataclass(frozen=True)
class Estimate:
    """The mean difference between two sides of a claim, with its standard error."""

    difference: float
    error: float
    freedom: float
    """Degrees of freedom of the error."""
    seeds: int
    """Of the side that has fewer."""
    freedom_of_seeds: float
    """Degrees of freedom of the seeds alone, of both sides."""

    def freedom_among(self, comparisons: int) -> float:
        """The degrees of freedom by which one of several comparisons is judged; see `judge`."""
        return freedom_among(comparisons, self.freedom, self.freedom_of_seeds)


def estimate(first: NDArray[np.float64], second: NDArray[np.float64], *, same_runs: bool) -> Estimate:
    """The first side minus the second, float [seeds, N] each, on the same N images; N is 1 for a number per run.

    The error covers images and seeds; see `uncertainty`. If both sides come from the same runs, they are compared run
    by run, so that what a seed does to both cancels.
    """
    assert first.shape[1] == second.shape[1], "sides on different images"
    assert not same_runs or first.shape == second.shape, "one run more on one side"
    c = first.mean(0) - second.mean(0)
    per_seed = [(first - second).mean(1)] if same_runs else [first.mean(1), second.mean(1)]
    of_seeds = sum(len(values) - 1 for values in per_seed)
    error, freedom = uncertainty(c, per_seed)
    if error <= ROUNDING * max(abs(first).max(), abs(second).max()):
        error = 0.0  # means of equal numbers differ in their last digit
    return Estimate(float(c.mean()), error, freedom, min(len(first), len(second)), of_seeds)


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

    The interval is Student's t at 1 - 0.05 / comparisons (Bonferroni's correction, Dunn, JASA 56, 1961), so that the
    probability of any false verdict among all comparisons is at most 5 %, however they depend on each other. Holm's
    method would decide a little more often, but has no interval that agrees with it.

    Of several comparisons the degrees of freedom are at most those of the seeds. Welch's, which are estimated, become
    large where a few seeds agree by luck, and far in the tail the interval is then much too narrow: with three seeds
    that vary twice as much as the images, simulated commands of 59 claims without any difference had 0.19 false
    verdicts in the mean, not 0.05.

    supported: the whole interval lies above the threshold. contradicted: the whole interval lies below it. undecided:
    neither, or there are fewer than three seeds, or there is no variation at all.
    """
    from scipy.stats import t

    assert comparisons >= 1
    centre, error = estimate.difference, estimate.error
    freedom = estimate.freedom_among(comparisons)
    critical = float(t.isf(LEVEL / comparisons / 2, freedom))
    low, high = centre - critical * error, centre + critical * error
    if estimate.seeds < FEWEST:
        why = (
            "one seed: the interval covers the images only, and says nothing about another training"
            if estimate.seeds == 1
            else "two seeds: too few to know how much trainings differ"
        )
        return Judgement(low, high, None, "undecided", why)
    if error == 0:
        why = "nothing varies between images or seeds, so chance is unknown"
        return Judgement(centre, centre, None, "undecided", why)
    smallest = error * detectable(critical, freedom)
    if low > threshold:
        return Judgement(low, high, smallest, "supported", "the whole interval lies above the threshold")
    if high < threshold:
        return Judgement(low, high, smallest, "contradicted", "the whole interval lies below the threshold")
    return Judgement(low, high, smallest, "undecided", "the interval contains the threshold")


def detectable(critical: float, freedom: float) -> float:
    """The true effect, in standard errors, that exceeds the critical value of Student's t with probability `POWER`.

    T = (Z + effect) / sqrt(V / freedom) with a normal Z and a chi-squared V; the probability is the mean over V.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm

    spread = np.ones(1)
    if math.isfinite(freedom):
        spread = np.sqrt(chi2.ppf((np.arange(2000) + 0.5) / 2000, freedom) / freedom)
    return float(brentq(lambda effect: norm.sf(critical * spread - effect).mean() - POWER, 0, 4 * critical + 4))
