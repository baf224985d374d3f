import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from contracts.evaluated import change, folder
from regmix.config import Experiment, to_json
from regmix.evaluation import paired, wilson
from regmix.reports import words, write_report
from regmix.reports.comparison import (
    arms,
    as_json,
    difference_lines,
    differences,
    doubts,
    shared_columns,
    table,
)
from regmix.reports.load import load
from regmix.reports.statistics import difference, holm, mean
from regmix.runs.records import Data
from regmix.types import Fingerprint

IMAGES = [Fingerprint(("a", "b"), (90, count - 90), "pixels", str(count)) for count in (190, 650)]


def drawn(rng: np.random.Generator, seeds: int, examples: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Survival of two methods: an easy or hard image is so for both, a lucky seed moves a whole run."""
    margin = rng.normal(0, 1, examples)
    return tuple(
        margin + shift + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.4, (seeds, examples)) > 0
        for shift in (gap, 0.0)
    )


@pytest.mark.parametrize("pairs", [1, 6])
def test_one_seed_each_is_the_comparison_of_two_columns(pairs):
    """The same numbers as in the sentence of the report, and McNemar's exact test."""
    first, second = drawn(np.random.default_rng(0), 1, 300, 0.2)
    centre, low, high, p = difference(first, second, pairs)
    pair = paired(first[0], second[0])
    assert centre == pytest.approx(first.mean() - second.mean())
    assert (low, high) == (pair.low, pair.high)
    assert p == pytest.approx(binomtest(pair.gained, pair.gained + pair.lost).pvalue, rel=1e-9)
    similar = ttest_rel(first[0].astype(float), second[0].astype(float))
    assert p == pytest.approx(similar.pvalue, rel=0.3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_covers_the_truth_and_equal_methods_rarely_differ(seeds):
    rng = np.random.default_rng(seeds)
    gap = 0.3
    spread = np.sqrt(1 + 0.1**2 + 0.4**2)
    from scipy.stats import norm

    truth = norm.cdf(gap / spread) - 0.5
    covered = alarmed = 0
    for _ in range(600):
        _, low, high, _ = difference(*drawn(rng, seeds, 200, gap))
        covered += low <= truth <= high
        alarmed += difference(*drawn(rng, seeds, 200, 0.0))[3] < 0.05
    assert covered >= 0.93 * 600
    assert alarmed <= 0.07 * 600


@pytest.mark.parametrize("methods", [6, 10])
def test_many_equal_methods_rarely_show_a_difference(methods):
    """Two seeds that agree by luck give Welch many degrees of freedom: some p below 0.05 in 15 to 18 % of cases."""
    rng, alarmed, images = np.random.default_rng(0), 0, 1000
    pairs = methods * (methods - 1) // 2
    for _ in range(200):
        # Seeds vary twice as much as the choice of the images.
        shares = 0.5 + rng.normal(0, 2 * 0.5 / images**0.5, (methods, 2, 1))
        tables = rng.random((methods, 2, images)) < shares
        smallest = min(difference(first, second, pairs)[3] for first, second in combinations(tables, 2))
        alarmed += pairs * smallest < 0.05
    assert alarmed <= 0.08 * 200


def test_seeds_widen_the_interval_that_images_alone_would_give():
    rng = np.random.default_rng(1)
    easy = np.zeros((3, 1000), bool)
    for row, share in zip(easy, (0.3, 0.5, 0.7), strict=True):
        row[: int(1000 * share)] = True
    other = np.repeat(rng.random((1, 1000)) < 0.5, 3, 0)
    _, low, high, _ = difference(easy, other)
    _, narrow_low, narrow_high, _ = difference(easy[1:2], other[1:2])
    assert high - low > 3 * (narrow_high - narrow_low)


def test_difference_changes_sign_with_the_order():
    first, second = drawn(np.random.default_rng(2), 3, 100, 0.5)
    centre, low, high, p = difference(first, second)
    back = difference(second, first)
    assert back == pytest.approx((-centre, -high, -low, p))
    assert difference(first, first)[0] == 0


def test_without_any_variance():
    same = np.ones((2, 10), bool)
    centre, low, high, p = difference(same, same)
    assert (centre, p) == (0, 1)
    assert -0.3 < low < -0.1 < 0.1 < high < 0.3, "ten images show no more"
    centre, low, high, p = difference(same, ~same)
    assert (centre, high) == (1, 1)
    assert 0.5 < low < 0.8
    assert p == 2 / 2**10
    assert difference(~same, same)[:3] == (-1, -1, -low)
    assert mean(~same) == (0, *wilson(0, 10))
    assert mean(same) == (1, *wilson(10, 10))


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.fixture
def seeded(write_run, tmp_path):
    paths = [
        write_run(tmp_path / f"{name}-seed{seed}", name, seed=seed)
        for name in ("regmix", "standard")
        for seed in (0, 1, 2)
    ]
    return paths, [load(path) for path in paths]


def test_runs_that_differ_in_their_seed_are_one_arm(seeded):
    paths, runs = seeded
    found = arms(runs)
    assert [[run.path for run in arm.runs] for arm in found] == [paths[:3], paths[3:]]
    header, *rows = table(found)
    assert header[:2] == ["method", "checkpoint"]
    values = [run.evaluations["best"].columns["clean"].accuracy for run in runs[:3]]
    place = header.index("clean")
    assert rows[0][place] == f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"


def test_a_second_run_with_a_seed_is_no_further_seed(seeded):
    paths, runs = seeded
    found = arms([*runs[:3], load(paths[1])])
    assert [len(arm.runs) for arm in found] == [3, 1]


@pytest.mark.parametrize(
    ("change_of", "why"),
    [
        (lambda run: replace(run, data=Data(IMAGES[1], IMAGES[0])), "learned from different images (190 and 650)"),
        (lambda run: replace(run, data=Data(IMAGES[0], IMAGES[1])), "validated on different images"),
        (lambda run: replace(run, environment=replace(run.environment, init="b" * 64)), "different weights"),
        (lambda run: replace(run, environment=replace(run.environment, precision="bf16")), "precision (32 and bf16)"),
        (lambda run: replace(run, result=replace(run.result, lengthened=[4])), "lengthened"),
    ],
)
def test_runs_that_their_records_tell_apart_are_no_seeds_of_one_experiment(seeded, change_of, why):
    _, runs = seeded
    first, second, third = (
        replace(run, data=Data(IMAGES[0], IMAGES[0]), environment=replace(run.environment, precision="32"))
        for run in runs[:3]
    )
    assert [len(arm.runs) for arm in arms([first, second, third])] == [3]
    found = arms([first, change_of(second), third])
    assert [[run.seed for run in arm.runs] for arm in found] == [[0, 2], [1]]
    (told,) = doubts(found)
    assert told.startswith(f"{second.path} is no further seed of {first.path}: they ") or "lengthened" in why
    assert why in told


def test_files_that_were_only_written_again_are_the_same_images(seeded):
    """With the same names and sizes; resuming warns of them, too, and goes on."""
    _, runs = seeded
    images = [replace(IMAGES[0], kind="files", times=times) for times in ("1", "2")]
    those = [replace(run, data=Data(one, one)) for run, one in zip(runs[:2], images, strict=True)]
    assert [len(arm.runs) for arm in arms(those)] == [2]


def test_models_from_elsewhere_are_no_seeds_of_each_other(seeded):
    """Their settings say nothing about their training, and may be the same."""
    _, runs = seeded
    others = [replace(run, environment=replace(run.environment, source=f"{n}.pth")) for n, run in enumerate(runs[:2])]
    assert [len(arm.runs) for arm in arms(others)] == [1, 1]


def test_a_run_of_before_a_setting_existed_is_a_seed_of_the_same_arm(seeded):
    paths, _ = seeded
    config = json.loads((paths[1] / "config.json").read_text())
    complete = {**json.loads(to_json(Experiment())), **config}
    for path, ramp in ((paths[0], 0.0), (paths[2], 0.5)):
        (path / "config.json").write_text(json.dumps({**complete, "seed": 7, "ramp": ramp}))
    older = {name: value for name, value in complete.items() if name not in ("ramp", "optimizer", "cuda_graph")}
    (paths[1] / "config.json").write_text(json.dumps(older))
    found = arms([load(path) for path in paths[:3]])
    assert [{run.path for run in arm.runs} for arm in found] == [{*paths[:2]}, {paths[2]}]


def test_pairs_only_where_all_met_the_same_attack_on_the_same_images(seeded, write_run, tmp_path):
    _, runs = seeded
    found = arms(runs)
    assert len(differences(found, "last", "pgd-50@0.1")) == 1
    assert not differences(found, "last", "pgd-50@0.7")
    other = load(write_run(tmp_path / "other", "regmix", seed=5, eps=(0.05,)))
    mixed = arms([*runs[3:], other])
    assert all(name == "clean" or name.endswith("@0.05") for name in shared_columns(mixed)["best"])
    assert differences(mixed, "best", "clean")
    file = folder(other.path, "best") / "outcomes.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, "9" + rows[0], *rows[1:]]) + "\n")
    mixed = arms([*runs[3:], load(other.path)])
    assert not differences(mixed, "best", "clean")


def test_p_is_adjusted_for_all_pairs_even_where_some_are_shown(seeded, write_run, tmp_path):
    _, runs = seeded
    third = [load(write_run(tmp_path / f"ema-seed{seed}", "regmix", seed=seed, epochs=31)) for seed in (0, 1, 2)]
    found = arms([*runs, *third])
    pairs = differences(found, "best", "pgd-50@0.1")
    tables = [arm.survives("best", "pgd-50@0.1") for arm in found]
    assert [one.p_holm for one in pairs] == holm([difference(*two, 3)[3] for two in combinations(tables, 2)])
    _, lines = difference_lines(found, first_only=True)[0]
    assert len(lines) == 2
    assert all("adjusted for 3 pairs" in line for line in lines)
    (shown,) = [lines for heading, lines in difference_lines(found) if heading.startswith("best, pgd-50@0.1 ")]
    for line, pair in zip(shown, pairs, strict=True):
        alone, among = ("< 0.001" if p < 0.001 else f"= {p:.3f}" for p in (pair.p, pair.p_holm))
        assert line.endswith(f"p {alone}, adjusted for 3 pairs {among}")
    assert "adjusted" not in str(difference_lines(found[:2])), "there is one pair"


def test_texts_about_seeds_are_true_of_methods_with_one_and_with_several(seeded, write_run, tmp_path):
    paths, runs = seeded
    single = write_run(tmp_path / "single", "standard", seed=3)
    heading, _ = difference_lines(arms([*runs[:2], load(single)]))[0]
    assert "images, and the seeds of all but standard training (seed 3)" in heading
    assert "images only: one seed" in difference_lines(arms([runs[0], load(single)]))[0][0]
    write_report([*paths[:2], single], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "RegMix with seed 0 and standard training with seed 3" in text
    assert "those of seed 0" not in text
    assert "for a method with several seeds, those of the training" in text


def test_what_speaks_against_single_runs_is_told_of_every_seed(seeded, tmp_path):
    paths, runs = seeded
    assert doubts(arms(runs)) == as_json(arms(runs))["doubts"] == []
    result = json.loads((paths[4] / "result.json").read_text())
    result["alarms"] = [{"epoch": 3, "reason": "catastrophic overfitting: PGD fell", "action": "continue"}]
    change(paths[4], "best", lambda one: one.update(masking={"verdict": "no sign of masking", "signs": []}))
    masked = {"verdict": "masked", "signs": ["one sign", "another"]}
    change(paths[4], "last", lambda one: one.update(masking=masked, preflight=["the outputs are probabilities"]))
    (paths[4] / "result.json").write_text(json.dumps(result))
    told = doubts(arms([load(path) for path in paths]))
    assert told == [
        "standard training, seed 1: alarm in epoch 3: catastrophic overfitting: PGD fell.",
        "standard training, seed 1, last: before the attacks, the outputs are probabilities.",
        f"standard training, seed 1, last: {words.MASKED} one sign; another.",
    ]
    write_report(paths, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert all(text.count(line) == 1 for line in told)


def test_seeds_whose_method_the_guard_changed_or_stopped_are_told(write_run, tmp_path):
    paths = [write_run(tmp_path / f"regmix-seed{seed}", seed=seed) for seed in (0, 1, 2)]
    for path, status, action in ((paths[0], "finished", "rollback"), (paths[2], "stopped", "stop")):
        result = json.loads((path / "result.json").read_text())
        result |= {"status": status, "alarms": [{"epoch": 13, "reason": "it fell", "action": action}]}
        (path / "result.json").write_text(json.dumps(result))
    (arm,) = arms([load(path) for path in paths])
    assert arm.label == "RegMix"
    assert doubts([arm]) == [
        "RegMix, seed 0: alarm in epoch 13: it fell. The run went back to epoch 12 and continued with N-FGSM.",
        "RegMix, seed 0: the guard changed the method; it was trained with RegMix (epochs 1 to 12), then N-FGSM "
        "(epochs 13 to 30).",
        "RegMix, seed 2: alarm in epoch 13: it fell. The run was stopped.",
        "RegMix, seed 2: Stopped by the guard against catastrophic overfitting after 30 of 30 epochs.",
    ]


def test_the_report_of_several_seeds_leads_with_their_means(seeded, tmp_path):
    paths, runs = seeded
    write_report(paths, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Results over seeds" in text
    assert "mean and standard deviation over 3 seeds" in text
    assert "from single runs, those of seed 0" in text
    for row in table(arms(runs))[1:]:
        assert all(cell in text for cell in row)
    write_report(paths[:1], tmp_path / "report.html")
    assert "Results over seeds" not in (tmp_path / "report.html").read_text()
