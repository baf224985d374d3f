import numpy as np
import pytest

from regmix.evaluation import paired, wilson
from regmix.reports.load import Outcomes, load
from regmix.reports.statistics import radii, same_examples, strongest, worst_case


def _columns(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a, b


def test_paired_difference_counts_the_examples_that_changed_sides():
    difference = paired(*_columns(300, 40, 10, 150))
    assert (difference.gained, difference.lost) == (40, 10)
    assert difference.difference == pytest.approx(30 / 500)
    # 30 / 502 +- 1.959964 sqrt(51 - 900 / 502) / 502
    assert difference.low == pytest.approx(0.059761 - 0.027388, abs=2e-6)
    assert difference.high == pytest.approx(0.059761 + 0.027388, abs=2e-6)
    assert difference.beyond_noise


def test_paired_difference_changes_sign_with_the_order():
    a, b = _columns(200, 9, 14, 30)
    forth, back = paired(a, b), paired(b, a)
    assert forth.difference == -back.difference
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert not forth.beyond_noise


def test_equal_columns_differ_by_nothing():
    a, _ = _columns(100, 0, 0, 100)
    same = paired(a, a)
    assert same.difference == 0
    assert same.low < 0 < same.high


def test_the_interval_covers_the_truth_about_95_times_of_100():
    rng = np.random.default_rng(0)
    shares = [0.55, 0.07, 0.03, 0.35]
    covered = 0
    for counts in rng.multinomial(300, shares, size=1000):
        interval = paired(*_columns(*counts))
        covered += interval.low <= 0.04 <= interval.high
    assert 0.93 <= covered / 1000 <= 0.98


def test_worst_case_survives_every_attack():
    survives = {"a": np.array([1, 1, 0, 1], bool), "b": np.array([1, 0, 1, 1], bool)}
    outcomes = Outcomes(np.arange(4), np.zeros(4, int), survives)
    worst = worst_case(outcomes, ["a", "b"])
    assert worst is not None
    assert worst.accuracy == 0.5
    assert (worst.low, worst.high) == wilson(2, 4)
    assert worst_case(outcomes, ["a", "c"]) is None
    assert worst_case(None, ["a"]) is None


def test_tables_of_other_examples_are_told_apart():
    here = Outcomes(np.arange(3), np.array([1, 2, 3]), {})
    assert same_examples(here, Outcomes(np.arange(3), np.array([1, 2, 3]), {}))
    assert not same_examples(here, Outcomes(np.arange(3), np.array([1, 2, 4]), {}))
    assert not same_examples(here, Outcomes(np.arange(2), np.array([1, 2]), {}))


def test_the_strongest_attack_is_the_lowest_one_and_the_last_of_equals(write_run, tmp_path):
    regmix, standard = load(write_run(tmp_path / "a")), load(write_run(tmp_path / "b", "standard"))
    assert strongest([regmix, standard], 0.1) == "pgd-50"
    # Nothing survives any attack at 0.2 there.
    assert strongest([standard], 0.2) == "pgd-50"
    assert strongest([regmix], 0.3) is None
    assert strongest([], 0.1) is None
    assert [text for _, text in radii([regmix, standard])] == ["0.05", "0.1", "0.15", "0.2"]
