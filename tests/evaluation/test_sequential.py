"""As many images as needed: the rule keeps its coverage although it looks many times."""

import sys
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import hypergeom

from regmix.evaluation.sequential import Rule, exact_interval

TRIES = 2000


def edges(rule: Rule, count: int) -> tuple[int, int]:
    """The largest number of correct images in the lower half that is narrow, and the smallest in the upper half.

    Between them none is narrow; -1 and count + 1 if none is.
    """
    low, high = -1, count // 2
    if rule.is_narrow(high, count):
        return count, 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rule.is_narrow(middle, count) else (low, middle)
    return low, count - low


def simulate(rule: Rule, sizes: list[int], correct: list[int], tries: int, seed: int = 0) -> tuple[float, float]:
    """The share of stratified samplings whose interval covers the truth, and the mean number of images."""
    rng = np.random.default_rng(seed)
    left, right = np.tile(sizes, (tries, 1)), np.tile(correct, (tries, 1))
    found, open_ = np.zeros(tries, dtype=int), np.ones(tries, dtype=bool)
    covered, took, before = np.zeros(tries, dtype=bool), np.zeros(tries), np.zeros(len(sizes), dtype=int)
    truth = sum(correct) / sum(sizes)
    for count in rule.looks():
        # The classes' shares of every prefix, as in a stratified order.
        now = np.floor(np.cumsum(np.array(sizes)) * count / sum(sizes) + 1e-9).astype(int)
        now = np.diff(now, prepend=0)
        more = np.broadcast_to(now - before, left.shape)
        hits = rng.hypergeometric(right, left - right, more)
        left, right, found, before = left - more, right - hits, found + hits.sum(1), now
        low, high = edges(rule, count)
        ends = open_ & ((found <= low) | (found >= high))
        for k in np.unique(found[ends]):
            bounds = rule.interval(int(k), count)
            inside = bounds[0] - 1e-12 <= truth <= bounds[1] + 1e-12
            covered[ends & (found == k)] = inside
        took[ends] = count
        open_ &= ~ends
    assert not open_.any()
    return float(covered.mean()), float(took.mean())


SLOW = pytest.mark.slow


@pytest.mark.parametrize("share", [0.03, pytest.param(0.3, marks=SLOW), 0.5, pytest.param(0.9, marks=SLOW)])
@pytest.mark.parametrize("spread", [0.0, pytest.param(0.25, marks=pytest.mark.slow)])
def test_two_thousand_samplings_of_ten_thousand_images_cover_the_truth(share, spread) -> None:
    """spread 0: all classes have the same accuracy, the worst case of a stratified sample."""
    rule, sizes = Rule(10_000, 10, 0.01), [1000] * 10
    tilt = min(spread, share, 1 - share) * np.linspace(-1, 1, 10)
    correct = np.round(1000 * (share + tilt)).astype(int).tolist()
    covered, images = simulate(rule, sizes, correct, TRIES)
    assert covered >= 0.94
    fixed = 1.96**2 * share * (1 - share) / 0.01**2
    assert images < 1.6 * fixed / (1 + fixed / 10_000), "not many more than a number that is chosen before"


@pytest.mark.parametrize(("total", "within"), [pytest.param(500, 0.05, marks=pytest.mark.slow), (400, 0.1)])
def test_small_splits_with_uneven_classes_are_covered_too(total, within) -> None:
    sizes = [total // 2, total // 4, total // 4]
    for share in (0.05, 0.4, 0.8):
        correct = [round(share * size) for size in sizes]
        covered, _ = simulate(Rule(total, 3, within), sizes, correct, TRIES)
        assert covered >= 0.94


def misses(rule: Rule, correct: int) -> float:
    """The exact probability that at some look the column is narrow and misses, whoever decides when to stop."""
    table = gammaln(np.arange(rule.total + 2) + 1.0)

    def choose(n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
        return table[n] - table[k] - table[n - k]

    total, missed, before = rule.total, 0.0, 0
    states, chance = np.array([0]), np.array([1.0])
    for count in rule.looks()[:-1]:
        first, last = (int(value) for value in hypergeom.ppf([1e-8, 1 - 1e-8], total, correct, count))
        new = np.arange(max(first, int(states[0])), last + 1)
        step, left, right = new[None] - states[:, None], total - before, correct - states[:, None]
        size = count - before
        possible = (step >= 0) & (step <= size) & (step <= right) & (size - step <= left - right)
        k, r = np.where(possible, step, 0), np.where(possible, right, 0)
        rest, pool = np.where(possible, size - step, 0), np.where(possible, left - right, 0)
        log = choose(r, k) + choose(pool, rest) - choose(np.array([left]), np.array([size]))
        arrive = chance @ np.where(possible, np.exp(log), 0)
        low, high = edges(rule, count)
        bad = ((new <= low) | (new >= high)) & (np.abs(new / count - correct / total) > rule.within + 1e-12)
        missed += float(arrive[bad].sum())
        states, chance, before = new, np.where(bad, 0, arrive), count
    return missed


@pytest.mark.parametrize(
    ("total", "within"),
    [(500, 0.04), *(pytest.param(*each, marks=SLOW) for each in ((10_000, 0.01), (3000, 0.02), (20_000, 0.015)))],
)
def test_the_exact_chance_of_a_miss_at_any_look_is_below_five_per_cent(total, within, monkeypatch) -> None:
    rule = Rule(total, 1, within)
    looks, known = rule.looks(), cache(edges)
    monkeypatch.setattr(Rule, "looks", lambda self: looks)
    monkeypatch.setattr(sys.modules[__name__], "edges", known)
    worst = max(misses(rule, round(total * share)) for share in np.arange(0.02, 0.51, 0.02))
    assert 0.02 < worst < 0.05, "not far below, or it would take more images than it must"


class Lead(Rule):
    """The rule for a difference, as if for a column: all images on which two models differ are the first one's."""

    def is_narrow(self, correct: int, count: int) -> bool:
        return Rule(self.total, self.classes, self.within).is_narrow_difference(correct, 0, count)


@pytest.mark.parametrize(
    ("total", "within"),
    [(500, 0.05), (10_000, 0.01), *(pytest.param(10_000, each, marks=SLOW) for each in (0.02, 0.05))],
)
def test_a_lead_on_all_images_that_differ_is_missed_in_less_than_five_per_cent(total, within, monkeypatch) -> None:
    """The normal approximation alone is narrow after few images without a difference, and missed in up to 11.5 %."""
    rule, known = Lead(total, 1, within), cache(edges)
    looks = rule.looks()
    monkeypatch.setattr(Lead, "looks", lambda self: looks)
    monkeypatch.setattr(sys.modules[__name__], "edges", known)
    leads = {round(total * within * factor) for factor in (1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3, 5)}
    assert max(misses(rule, lead) for lead in sorted(leads)) < 0.05


def test_the_exact_interval_holds_what_its_definition_says() -> None:
    for correct, count, total in ((0, 20, 60), (7, 20, 60), (20, 20, 60), (30, 60, 60)):
        kept = [
            whole
            for whole in range(correct, total - count + correct + 1)
            if hypergeom.sf(correct - 1, total, whole, count) > 0.02
            and hypergeom.cdf(correct, total, whole, count) > 0.02
        ]
        assert exact_interval(correct, count, total) == (min(kept) / total, max(kept) / total)


def test_the_whole_split_leaves_no_doubt() -> None:
    rule = Rule(60, 3, 0.01)
    assert rule.looks()[-1] == 60
    assert rule.is_narrow(30, 60)
    assert rule.interval(30, 60) == (0.5, 0.5)
    assert rule.difference_interval(5, 2, 60) == (0.05, 0.05)


@pytest.mark.parametrize(
    ("gained", "lost"),
    [(0.0, 0.004), *(pytest.param(*both, marks=pytest.mark.slow) for both in ((0.02, 0.01), (0.1, 0.05), (0.25, 0.2)))],
)
def test_differences_of_two_models_are_covered(gained, lost, monkeypatch) -> None:
    monkeypatch.setattr(Rule, "is_narrow", cache(Rule.is_narrow))
    rule, rng = Rule(10_000, 10, 0.01), np.random.default_rng(1)
    counts = [round(10_000 * gained), round(10_000 * lost)]
    left = np.tile([*counts, 10_000 - sum(counts)], (TRIES, 1))
    found, open_, covered = np.zeros((TRIES, 2), dtype=int), np.ones(TRIES, dtype=bool), np.zeros(TRIES, dtype=bool)
    before, truth = 0, (counts[0] - counts[1]) / 10_000
    for count in rule.looks():
        first = rng.hypergeometric(left[:, 0], left[:, 1] + left[:, 2], count - before)
        second = rng.hypergeometric(left[:, 1], left[:, 2], count - before - first)
        left = left - np.stack([first, second, count - before - first - second], 1)
        found, before = found + np.stack([first, second], 1), count
        pairs, place = np.unique(found, axis=0, return_inverse=True)
        close = np.array([rule.is_narrow_difference(int(b), int(c), count) for b, c in pairs])[place.ravel()]
        ends = open_ & close
        bounds = np.array([rule.difference_interval(int(b), int(c), count) for b, c in pairs])[place.ravel()]
        inside = (bounds[:, 0] - 1e-12 <= truth) & (truth <= bounds[:, 1] + 1e-12)
        covered[ends] = inside[ends]
        open_ &= ~ends
    assert not open_.any()
    assert covered.mean() >= 0.94
