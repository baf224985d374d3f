"""Verdicts agree with textbook intervals, keep their error rate over many claims, and say what could be seen."""

import math

import numpy as np
import pytest
from scipy import stats

from regmix.studies.reproduce.verdict import LEVEL, POWER, Estimate, detectable, estimate, judge


def draw(random: np.random.Generator, arms: int, seeds: int, images: int, seed_spread: float) -> np.ndarray:
    """Survival of images, float [arms, seeds, images]: some images are harder, some trainings are better."""
    hardness = random.normal(0, 1.5, images)
    luck = random.normal(0, seed_spread, (arms, seeds, 1))
    return (random.random((arms, seeds, images)) < 1 / (1 + np.exp(-(hardness + luck)))).astype(float)


def test_numbers_per_run_of_two_methods_are_welchs_test() -> None:
    first, second = np.array([[98.0], [95.0], [101.0]]), np.array([[110.0], [104.0], [103.0], [109.0]])
    reference = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False)
    judged = judge(estimate(first, second, same_runs=False), 0.0, 1)
    interval = reference.confidence_interval(0.95)
    assert (judged.low, judged.high) == pytest.approx((interval.low, interval.high))


def test_two_sides_of_the_same_runs_are_compared_run_by_run() -> None:
    first, second = np.array([[0.31], [0.35], [0.28]]), np.array([[0.30], [0.33], [0.27]])
    reference = stats.ttest_rel(first[:, 0], second[:, 0]).confidence_interval(0.95)
    judged = judge(estimate(first, second, same_runs=True), 0.0, 1)
    assert (judged.low, judged.high) == pytest.approx((reference.low, reference.high))


def test_the_error_adds_images_and_seeds() -> None:
    first, second = draw(np.random.default_rng(0), 2, 3, 400, 0.5)
    measured = estimate(first, second, same_runs=False)
    c = first.mean(0) - second.mean(0)
    parts = [c.var(ddof=1) / 400, first.mean(1).var(ddof=1) / 3, second.mean(1).var(ddof=1) / 3]
    assert measured.error == pytest.approx(math.sqrt(sum(parts)))
    assert measured.difference == pytest.approx(first.mean() - second.mean())
    spread = parts[0] ** 2 / 399 + (parts[1] ** 2 + parts[2] ** 2) / 2
    assert measured.freedom == pytest.approx(sum(parts) ** 2 / spread)


@pytest.mark.parametrize(
    ("difference", "threshold", "verdict"),
    [
        (3.0, 0.0, "supported"), (-3.0, 0.0, "contradicted"), (1.0, 0.0, "undecided"), (0.5, -2.0, "supported"),
        (1.0, 4.0, "contradicted"),
    ],
)  # fmt: skip
def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_threshold(difference, threshold, verdict) -> None:
    # With infinite degrees of freedom a single comparison reaches 1.96 errors to each side.
    assert judge(Estimate(difference, 1.0, math.inf, 3, 4), threshold, 1).verdict == verdict


def test_more_comparisons_widen_the_interval_to_bonferronis() -> None:
    judged = judge(Estimate(2.5, 1.0, 10.0, 3, 12), 0.0, 20)
    assert judged.high - 2.5 == pytest.approx(stats.t.ppf(1 - 0.05 / 40, 10))
    assert judged.verdict == "undecided"
    assert judge(Estimate(2.5, 1.0, 10.0, 3, 12), 0.0, 1).verdict == "supported"


def test_one_seed_never_decides_however_large_the_difference() -> None:
    first, second = np.ones((1, 500)), np.r_[np.zeros(490), np.ones(10)][None]
    for pair in ((first, second), (first, np.repeat(second, 3, 0)), (np.repeat(first, 3, 0), second)):
        judged = judge(estimate(*pair, same_runs=False), 0.0, 1)
        assert (judged.verdict, judged.smallest_effect) == ("undecided", None)
        assert "one seed" in judged.why


def test_the_interval_of_one_seed_is_that_of_the_images() -> None:
    """Of 18 claims, too: a seed alone has no degrees of freedom, but 2,000 images have."""
    random = np.random.default_rng(0)
    first, second = ((random.random((1, 2000)) < share).astype(np.float64) for share in (0.3, 0.27))
    measured = estimate(first, second, same_runs=False)
    judged = judge(measured, 0.0, 18)
    critical = stats.t.isf(LEVEL / 18 / 2, 1999)
    assert judged.high - judged.low == pytest.approx(2 * critical * measured.error)
    assert judged.high - judged.low < 0.1


def test_two_seeds_never_decide() -> None:
    judged = judge(Estimate(9.0, 1.0, 30.0, 2, 2), 0.0, 1)
    assert (judged.verdict, judged.smallest_effect) == ("undecided", None)
    assert "two seeds" in judged.why


def test_equal_numbers_whose_means_are_rounded_do_not_vary() -> None:
    equal = estimate(np.full((3, 1), 0.3), np.full((3, 1), 0.1), same_runs=False)
    assert (equal.error, judge(equal, 0.0, 60).verdict) == (0.0, "undecided")


def test_no_variation_at_all_decides_nothing() -> None:
    judged = judge(estimate(np.ones((3, 50)), np.zeros((3, 50)), same_runs=False), 0.0, 1)
    assert (judged.verdict, judged.smallest_effect) == ("undecided", None)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 4.0, 30.0])
@pytest.mark.parametrize("comparisons", [1, 25])
def test_the_smallest_effect_is_seen_in_four_of_five_trials(freedom: float, comparisons: int) -> None:
    critical = float(stats.t.isf(LEVEL / comparisons / 2, freedom))
    random = np.random.default_rng(1)
    effect, trials = detectable(critical, freedom), 100_000
    scores = (random.normal(effect, 1, trials)) / np.sqrt(random.chisquare(freedom, trials) / freedom)
    assert (scores > critical).mean() == pytest.approx(POWER, abs=0.006)


def test_the_smallest_effect_without_seeds_to_estimate_from_is_the_normal_one() -> None:
    assert detectable(1.959964, math.inf) == pytest.approx(1.959964 + 0.841621, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed_spread", [0.0, 0.3])
@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_methods_get_a_false_verdict_in_at_most_one_of_twenty_commands(seeds: int, seed_spread: float) -> None:
    """Eight methods without any difference, one compared with the seven others, as in a real command."""
    random, commands, false = np.random.default_rng(seeds), 400, 0
    for _ in range(commands):
        first, *others = draw(random, 8, seeds, 300, seed_spread)
        judged = [judge(estimate(first, other, same_runs=False), 0.0, len(others)) for other in others]
        false += any(one.verdict != "undecided" for one in judged)
    # Three standard errors above 5 % of 400.
    assert false <= 0.05 * commands + 3 * math.sqrt(0.05 * 0.95 * commands)


@pytest.mark.parametrize(("seeds", "comparisons"), [(3, 13), (3, 59), (5, 59)])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.0, 4.0])
def test_many_claims_keep_the_rate_however_much_seeds_vary(seeds: int, comparisons: int, ratio: float) -> None:
    """The error of the images is 1 and known from many of them; that of the seeds is `ratio`, and estimated."""
    random, claims = np.random.default_rng(seeds), 200_000
    luck = random.normal(0, ratio * math.sqrt(seeds / 2), (2, seeds, claims))
    parts = luck.var(1, ddof=1) / seeds
    errors, freedoms = np.sqrt(1 + parts.sum(0)), (1 + parts.sum(0)) ** 2 / ((parts**2).sum(0) / (seeds - 1))
    differences = random.normal(0, 1, claims) + luck[0].mean(0) - luck[1].mean(0)
    least = 2 * (seeds - 1)
    critical = stats.t.isf(LEVEL / comparisons / 2, np.minimum(freedoms, least))
    used = Estimate(0.0, 1.0, 100.0, seeds, least).freedom_among(comparisons)
    assert used == least, "the rule that is simulated is the one in use"
    false = (abs(differences) > critical * errors).mean()
    assert comparisons * false <= LEVEL * 1.1
    welch = stats.t.isf(LEVEL / comparisons / 2, freedoms)
    if (seeds, comparisons, ratio) == (3, 59, 2.0):
        assert comparisons * (abs(differences) > welch * errors).mean() > 2 * LEVEL, "what the rule is for"


@pytest.mark.slow
def test_a_large_difference_is_found() -> None:
    random = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        first, second = draw(random, 2, 5, 2000, 0.05)
        first = np.maximum(first, random.random(first.shape) < 0.2)  # a fifth of the losses is saved
        found += judge(estimate(first, second, same_runs=False), 0.0, 20).verdict == "supported"
    assert found >= 45
