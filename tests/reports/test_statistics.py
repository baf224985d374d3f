from dataclasses import replace

import numpy as np
import pytest

from contracts.evaluated import change
from regmix.evaluation import paired, wilson
from regmix.reports.comparison import arms
from regmix.reports.curves import training_facts
from regmix.reports.findings.case import Case
from regmix.reports.gap import gap
from regmix.reports.load import Outcomes, aligned, load
from regmix.reports.page import summary, table
from regmix.reports.statistics import Share, difference, mean, radii, same_examples, strongest, worst_case
from regmix.reports.subject import subjects_of
from regmix.reports.words import percent


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


def test_the_worst_case_survives_every_attack_up_to_its_radius(write_run, tmp_path):
    """A strong attack at a small radius counts at a larger one, too, at which only a weak one was run."""
    run = load(write_run(tmp_path / "a", checkpoints=("best",), eps=(0.1, 0.2)))
    columns = {name: run.evaluations["best"].columns[name] for name in ("clean", "fgsm@0.1", "pgd-10@0.1", "fgsm@0.2")}
    place = np.arange(500)
    survives = {
        "clean": place < 500, "fgsm@0.1": place < 400, "pgd-10@0.1": place < 200, "fgsm@0.2": place >= 50,
    }  # fmt: skip
    outcomes = replace(run.outcomes["best"], survives=survives)
    run = replace(
        run, evaluations={"best": replace(run.evaluations["best"], columns=columns)}, outcomes={"best": outcomes}
    )
    assert worst_case(run, "best", 0.1) == Share(200 / 500, *wilson(200, 500))
    assert worst_case(run, "best", 0.2) == Share(150 / 500, *wilson(150, 500))
    survives.pop("pgd-10@0.1")
    assert worst_case(run, "best", 0.2) is None
    assert worst_case(replace(run, outcomes={}), "best", 0.1) is None


def test_the_smallest_perturbations_count_in_the_worst_case(write_run, tmp_path):
    run = load(write_run(tmp_path / "run"))
    survives = np.logical_and.reduce(
        [run.outcomes["best"].survives[name] for name, column in run.evaluations["best"].columns.items()
         if 0 < column.eps <= 0.1]
    )  # fmt: skip
    lengths = np.linspace(0.05, 0.15, len(survives))
    near = replace(run, distances={"best": {"fmn": lengths, "ddn": np.full(len(survives), np.inf)}})
    left = int((survives & (lengths > 0.1)).sum())
    assert 0 < left < survives.sum()
    assert worst_case(near, "best", 0.1) == Share(left / len(survives), *wilson(left, len(survives)))


def test_the_same_positions_and_labels_in_other_images_are_no_pair(write_run, tmp_path):
    """A folder of images and a noisy copy of it, and one pass through a random model and several."""
    first, other = load(write_run(tmp_path / "a")), write_run(tmp_path / "b", seed=1)
    assert same_examples(first, "best", load(other), "last")
    change(other, "last", lambda one: one["subject"]["data"].update(digest="1" * 32))
    assert not same_examples(first, "best", load(other), "last")
    assert same_examples(first, "best", load(other), "best")
    change(other, "best", lambda one: one["subject"].update(draws=20))
    assert not same_examples(first, "best", load(other), "best")


def test_other_positions_or_labels_and_missing_outcomes_are_no_pair(write_run, tmp_path):
    run = load(write_run(tmp_path / "a"))
    here = run.outcomes["best"]
    for index, label in ((here.index + 1, here.label), (here.index, here.label + 1), (here.index[:2], here.label[:2])):
        other = replace(run, outcomes={"best": Outcomes(index, label, {})})
        assert not same_examples(run, "best", other, "best")
    assert not same_examples(run, "best", replace(run, outcomes={}), "best")


def test_best_of_averaged_weights_after_the_last_epoch_is_not_last(write_run, tmp_path):
    run = load(write_run(tmp_path / "a"))
    last = run.epochs[-1]
    same = replace(run, result=replace(run.result, best_epoch=last.epoch, best_pgd=last.pgd))
    average = replace(run, result=replace(same.result, best_pgd=last.pgd + 0.06))
    assert "the same weights" in gap(*subjects_of([same])).text
    text = gap(*subjects_of([average])).text
    assert "the same weights" not in text
    assert "95% interval of the paired difference" in text
    assert "what averaging gains" in text
    sentences = [" ".join(summary(subjects_of([one]))) for one in (average, same)]
    assert "best checkpoint: the averaged weights of the epoch with the highest" in sentences[0]
    assert "best checkpoint: the weights of the epoch with the highest" in sentences[1]
    several = " ".join(summary(subjects_of([average, same, replace(same, path=tmp_path / "b")])))
    assert several.count("the averaged weights of the epoch") == several.count("the weights of the epoch") == 1
    assert "best checkpoints: the weights of the epoch" in several
    assert dict(training_facts(average))["validation PGD at best"] == percent(last.pgd + 0.06)
    assert not run.best_is_average, "a result of before this was recorded"


def test_the_run_says_whether_its_best_weights_are_an_average(write_run, tmp_path):
    """After standard training the PGD accuracies of both may be 0, and tell nothing."""
    run = load(write_run(tmp_path / "a"))
    last = run.epochs[-1]
    facts = replace(run.result, best_epoch=last.epoch, best_pgd=last.pgd)
    for averaged in (True, False):
        assert replace(run, result=replace(facts, best_averaged=averaged)).best_is_average == averaged


def test_a_gap_of_standard_training_is_no_robust_overfitting(write_run, tmp_path):
    """Its best epoch is chosen without an attack."""
    for method, told in (("regmix", False), ("standard", True)):
        (subject,) = subjects_of([load(write_run(tmp_path / method, method_name=method))])
        text = gap(subject).text
        assert ("chooses its best epoch by accuracy without an attack" in text) == told
        assert ("does not show robust overfitting" in text) == told


def test_a_difference_lies_between_minus_and_plus_100_points():
    first, second = np.zeros((2, 500), bool), np.zeros((2, 500), bool)
    first[0, :260], first[1, :50], second[0, :25], second[1, :15] = True, True, True, True
    centre, low, high, _ = difference(first, second)
    assert (centre, low, high) == (pytest.approx(0.27), -1.0, 1.0)


@pytest.mark.parametrize("share", range(5, 100, 5))
def test_equal_seeds_leave_the_interval_of_the_images(share):
    """The variance of equal numbers is not 0 for all of them: 1e-34."""
    same = np.stack([np.arange(100) < share] * 3)
    assert difference(same, same)[1:3] == pytest.approx(difference(same[:1], same[:1])[1:3])


def test_a_mean_near_0_is_not_narrower_than_its_images_allow():
    """One survivor in three seeds says no more than none."""
    none, one = np.zeros((3, 1000), bool), np.zeros((3, 1000), bool)
    one[0, 17] = True
    assert mean(none) == (0, *wilson(0, 1000))
    centre, low, high = mean(one)
    assert (low, high) == (0, wilson(0, 1000)[1])
    assert mean(~one) == pytest.approx((1 - centre, 1 - high, 1 - low))
    many = np.arange(1000) < 300
    assert mean(np.stack([many, many, many]))[1] > 0.25


def test_no_pairs_are_made_of_different_images(write_run, tmp_path):
    """Between best and last, between a run and its peer, and over the seeds of a method."""
    other = write_run(tmp_path / "b", seed=1)
    change(other, "best", lambda one: one["subject"]["data"].update(digest="1" * 32))
    alone = load(other)
    (second,) = subjects_of([alone])
    assert [*alone.evaluations] == ["best"]
    assert [each.subject.checkpoint for each in alone.others] == ["averaged", "last"]
    assert "different test images" in gap(second).text
    assert Case(second).best_minus_last() is None
    notes = " ".join(table(second).notes)
    assert "The last checkpoint has been evaluated on other images only." in notes
    assert "not been evaluated" not in notes
    runs = aligned([load(write_run(tmp_path / "a")), alone])
    first, second = subjects_of(runs)
    assert gap(first).best is not None
    assert Case(first).best_minus_last() is not None
    assert Case(first).against(second, "clean", "last") is not None
    assert Case(first).against(second, "clean", "best") is None
    (arm,) = arms(runs)
    assert arm.survives("last", "clean") is not None
    assert arm.survives("best", "clean") is None


def test_the_strongest_attack_is_the_lowest_one_and_the_last_of_equals(write_run, tmp_path):
    regmix, standard = load(write_run(tmp_path / "a")), load(write_run(tmp_path / "b", "standard"))
    assert strongest([regmix, standard], 0.1) == "pgd-50"
    # Nothing survives any attack at 0.2 there.
    assert strongest([standard], 0.2) == "pgd-50"
    assert strongest([regmix], 0.3) is None
    assert strongest([], 0.1) is None
    assert [text for _, text in radii([regmix, standard])] == ["0.05", "0.1", "0.15", "0.2"]


def test_a_run_is_judged_on_its_first_checkpoint_where_no_attack_is_common_to_all(write_run, tmp_path):
    run = load(write_run(tmp_path / "a"))
    best, last = run.evaluations["best"], run.evaluations["last"]
    others = {name: replace(column, attack="square") for name, column in last.columns.items() if column.eps}
    run = replace(run, evaluations={"best": best, "last": replace(last, columns=others)})
    assert strongest([run], 0.1) == "pgd-50"
    assert subjects_of([run])[0].attack == "pgd-50"
