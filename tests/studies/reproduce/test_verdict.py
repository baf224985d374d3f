"""Verdicts agree with textbook intervals, keep their error rate over many claims, and say what could be seen."""

import math

import numpy as np
import pytest
from scipy import stats

from regmix.studies.reproduce.verdict import LEVEL, POWER, Error, Estimate, detectable, estimate, judge


def draw(random: np.random.Generator, arms: int, seeds: int, images: int, seed_spread: float) -> np.ndarray:
    """Survival of images, float [arms, seeds, images]: some images are harder, some trainings are better."""
    hardness = random.normal(0, 1.5, images)
    luck = random.normal(0, seed_spread, (arms, seeds, 1))
    return (random.random((arms, seeds, images)) < 1 / (1 + np.exp(-(hardness + luck)))).astype(float)


def test_numbers_per_run_of_two_methods_are_welchs_test_rounded_down() -> None:
    first, second = np.array([[98.0], [95.0], [101.0]]), np.array([[110.0], [104.0], [103.0], [109.0]])
    reference = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False)
    measured = estimate(first, second, same_runs=False)
    judged = judge(measured, 0.0, 1)
    assert measured.trainings.freedom == math.floor(reference.df)
    reach = stats.t.isf(0.025, math.floor(reference.df)) * (measured.difference / reference.statistic)
    assert judged.high - measured.difference == pytest.approx(reach)


def test_two_sides_of_the_same_runs_are_compared_run_by_run() -> None:
    first, second = np.array([[0.31], [0.35], [0.28]]), np.array([[0.30], [0.33], [0.27]])
    reference = stats.ttest_rel(first[:, 0], second[:, 0]).confidence_interval(0.95)
    judged = judge(estimate(first, second, same_runs=True), 0.0, 1)
    assert (judged.low, judged.high) == pytest.approx((reference.low, reference.high))


def test_images_and_seeds_are_two_errors() -> None:
    first, second = draw(np.random.default_rng(0), 2, 3, 400, 0.5)
    measured = estimate(first, second, same_runs=False)
    c = first.mean(0) - second.mean(0)
    parts = first.mean(1).var(ddof=1) / 3, second.mean(1).var(ddof=1) / 3
    assert measured.difference == pytest.approx(first.mean() - second.mean())
    assert (measured.images.size, measured.images.freedom) == pytest.approx((c.std(ddof=1) / 20, 399))
    assert measured.trainings.size == pytest.approx(math.sqrt(sum(parts)))
    assert measured.trainings.freedom == math.floor(sum(parts) ** 2 / (sum(part**2 for part in parts) / 2))
    judged = judge(measured, 0.0, 7)
    reaches = [stats.t.isf(LEVEL / 14, error.freedom) * error.size for error in (measured.images, measured.trainings)]
    assert judged.high - measured.difference == pytest.approx(math.hypot(*reaches))


def certain(difference: float, seeds: int = 3) -> Estimate:
    """A difference whose error of 1 is known exactly."""
    return Estimate(difference, Error(1.0, math.inf), Error(), seeds)


@pytest.mark.parametrize(
    ("difference", "threshold", "verdict"),
    [
        (3.0, 0.0, "supported"), (-3.0, 0.0, "contradicted"), (1.0, 0.0, "undecided"), (0.5, -2.0, "supported"),
        (1.0, 4.0, "contradicted"),
    ],
)  # fmt: skip
def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_threshold(difference, threshold, verdict) -> None:
    # A single comparison reaches 1.96 errors to each side.
    assert judge(certain(difference), threshold, 1).verdict == verdict


def test_more_comparisons_widen_the_interval_to_bonferronis() -> None:
    measured = Estimate(2.5, Error(), Error(1.0, 10.0), 3)
    judged = judge(measured, 0.0, 20)
    assert judged.high - 2.5 == pytest.approx(stats.t.ppf(1 - 0.05 / 40, 10))
    assert judged.verdict == "undecided"
    assert judge(measured, 0.0, 1).verdict == "supported"


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
    assert judged.high - judged.low == pytest.approx(2 * critical * measured.images.size)
    assert judged.high - judged.low < 0.1


def test_two_seeds_never_decide() -> None:
    judged = judge(certain(9.0, seeds=2), 0.0, 1)
    assert (judged.verdict, judged.smallest_effect) == ("undecided", None)
    assert "two seeds" in judged.why


def test_equal_numbers_whose_means_are_rounded_do_not_vary() -> None:
    equal = estimate(np.full((3, 1), 0.3), np.full((3, 1), 0.1), same_runs=False)
    assert (equal.trainings, judge(equal, 0.0, 60).verdict) == (Error(), "undecided")


def test_no_variation_at_all_decides_nothing() -> None:
    judged = judge(estimate(np.ones((3, 50)), np.zeros((3, 50)), same_runs=False), 0.0, 1)
    assert (judged.verdict, judged.smallest_effect) == ("undecided", None)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 4.0, 30.0])
@pytest.mark.parametrize("comparisons", [1, 25])
@pytest.mark.parametrize("images", [0.0, 1.0])
def test_the_smallest_effect_is_seen_in_four_of_five_trials(freedom: float, comparisons: int, images: float) -> None:
    errors = Error(images, math.inf), Error(1.0, freedom)
    critical = [float(stats.t.isf(LEVEL / comparisons / 2, error.freedom)) for error in errors]
    random = np.random.default_rng(1)
    effect, trials = detectable(critical, errors), 100_000
    estimated = np.sqrt(random.chisquare(freedom, trials) / freedom)
    seen = random.normal(effect, math.hypot(images, 1), trials)
    assert (seen > np.hypot(critical[0] * images, critical[1] * estimated)).mean() == pytest.approx(POWER, abs=0.006)


def test_the_smallest_effect_without_seeds_to_estimate_from_is_the_normal_one() -> None:
    found = detectable([1.959964, 1.959964], (Error(2.0, math.inf), Error()))
    assert found == pytest.approx(2 * (1.959964 + 0.841621), abs=1e-4)


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


@pytest.mark.parametrize(("seeds", "comparisons"), [(3, 1), (3, 13), (5, 1), (5, 13)])
@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("spreads", [(0.3, 0.3), (1, 1), (2, 1), (4, 4), (1, 0), (4, 1), (10, 1), (100, 10)])
def test_claims_keep_the_rate_however_much_seeds_vary(
    seeds: int, comparisons: int, images: int, spreads: tuple[float, float]
) -> None:
    """The error of the images is known; that of each side's seeds is one of `spreads`, and estimated."""
    random, claims = np.random.default_rng(seeds), 150_000
    luck = random.normal(0, 1, (2, seeds, claims)) * np.array(spreads)[:, None, None] * math.sqrt(seeds)
    parts = luck.var(1, ddof=1) / seeds
    freedoms = np.floor(parts.sum(0) ** 2 / ((parts**2).sum(0) / (seeds - 1)) + 1e-9).astype(int)
    quantile = LEVEL / comparisons / 2
    critical = stats.t.isf(quantile, np.arange(2 * seeds).clip(1))[freedoms]
    reach = np.hypot(images * stats.norm.isf(quantile), critical * np.sqrt(parts.sum(0)))
    trainings = Error(float(np.sqrt(parts.sum(0)[0])), int(freedoms[0]))
    judged = judge(Estimate(0.0, Error(images, math.inf), trainings, seeds), 0.0, comparisons)
    assert judged.high == pytest.approx(reach[0]), "the rule in use is simulated"
    differences = random.normal(0, 1, claims) * images + luck[0].mean(0) - luck[1].mean(0)
    rate = comparisons * (abs(differences) > reach).mean()
    assert rate <= (0.075 if max(spreads) > 2 * min(spreads) else 1.05 * LEVEL)


@pytest.mark.slow
def test_a_large_difference_is_found() -> None:
    random = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        first, second = draw(random, 2, 5, 2000, 0.05)
        first = np.maximum(first, random.random(first.shape) < 0.2)  # a fifth of the losses is saved
        found += judge(estimate(first, second, same_runs=False), 0.0, 20).verdict == "supported"
    assert found >= 45
