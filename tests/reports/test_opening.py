"""The first screen of the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.evaluated import change, folder
from regmix.evaluation import wilson
from regmix.reports import comparison
from regmix.reports.classes import per_class
from regmix.reports.findings import find
from regmix.reports.load import LoadedRun, aligned, load
from regmix.reports.opening import Opening, _capitalised, opening
from regmix.reports.remarks import limits
from regmix.reports.statistics import mean, uncertainty
from regmix.reports.subject import subjects_of


def first_screen(*paths: Path) -> Opening:
    runs: list[LoadedRun] = aligned([load(path) for path in paths])
    arms = comparison.arms(runs)
    subjects = subjects_of([arm.runs[0] for arm in arms])
    return opening(subjects, arms, [per_class(subject) for subject in subjects], find(subjects))


def survives(run: Path, column: str) -> np.ndarray:
    table = np.genfromtxt(folder(run, "best") / "outcomes.csv", delimiter=",", names=True, deletechars="")
    return table[column].astype(int)


def test_a_run_opens_with_its_accuracies_and_its_weakest_class(write_run, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    shown = first_screen(run)
    robust, clean = survives(run, "pgd-50@0.1"), survives(run, "clean")
    labels = np.genfromtxt(folder(run, "best") / "outcomes.csv", delimiter=",", names=True)["label"]
    weakest = min(robust[labels == label].mean() for label in range(10))
    assert [number.value for number in shown.numbers] == [
        f"{100 * v:.1f}%" for v in (robust.mean(), clean.mean(), weakest)
    ]
    low, high = wilson(int(robust.sum()), len(robust))
    assert shown.numbers[0].interval == f"{100 * low:.1f} to {100 * high:.1f}"
    (chart,) = shown.charts
    assert [row.label.replace("\u00a0", " ") for row in chart.rows] == [
        "no attack", "ε = 0.05", "ε = 0.1 (of the training)", "ε = 0.15", "ε = 0.2",
    ]  # fmt: skip
    worst = np.min([survives(run, f"{name}@0.1") for name in ("fgsm", "pgd-10", "pgd-50")], axis=0)
    assert chart.rows[2].text == f"{100 * worst.mean():.1f}%"


def test_a_comparison_opens_with_all_methods_and_the_differences_to_the_first(write_run, tmp_path: Path) -> None:
    runs = write_run(tmp_path / "regmix"), write_run(tmp_path / "standard", "standard")
    shown = first_screen(*runs)
    accuracies, differences = shown.charts
    robust = [survives(run, "pgd-50@0.1") for run in runs]
    clean = [survives(run, "clean").mean() for run in runs]
    assert [row.label for row in accuracies.rows] == ["RegMix", "standard training"]  # the more robust one first
    assert [row.text for row in accuracies.rows] == [
        f"{100 * r.mean():.1f}% / {100 * c:.1f}%" for r, c in zip(robust, clean, strict=True)
    ]
    (row,) = differences.rows
    gap = 100 * (robust[0].mean() - robust[1].mean())
    assert (row.label, row.text) == ("minus standard training", f"{gap:+.1f}")
    assert shown.numbers == []


def test_seeds_of_one_method_open_with_their_mean(write_run, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"regmix-seed{seed}", seed=seed) for seed in (0, 1, 2)]
    shown = first_screen(*runs)
    robust = np.stack([survives(run, "pgd-50@0.1") for run in runs])
    assert shown.numbers[0].value == f"{100 * robust.mean():.1f}%"
    assert "mean over 3 seeds" in shown.numbers[0].text
    assert [row.label for row in shown.charts[0].rows] == ["seed 0", "seed 1", "seed 2"]
    error, freedom = uncertainty(robust.mean(0), [robust.mean(1)])
    _, low, high = mean(robust.astype(bool))
    assert freedom > 1
    assert high - low > 2 * 1.95 * error  # Student's quantile is larger than the normal one


@pytest.mark.parametrize("evaluated", [[], [0], [0, 1]])
def test_seeds_that_were_not_evaluated_are_left_out(write_run, tmp_path: Path, evaluated: list[int]) -> None:
    runs = [
        write_run(tmp_path / f"regmix-seed{seed}", seed=seed, **({} if seed in evaluated else {"checkpoints": ()}))
        for seed in (0, 1, 2)
    ]
    shown = first_screen(*runs)
    assert [row.label for chart in shown.charts for row in chart.rows] == [f"seed {seed}" for seed in evaluated]


@pytest.mark.parametrize("second", ["regmix", "standard"])
def test_runs_on_different_images_are_not_averaged_in_silence(write_run, tmp_path: Path, second: str) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", second, seed=1)]
    for checkpoint in ("best", "last", "averaged"):
        change(runs[1], checkpoint, lambda one: one["subject"]["data"].update(digest="1" * 32))
    shown = first_screen(*runs)
    assert shown.numbers == []
    what = "averaged" if second == "regmix" else "compared"
    assert shown.advice[0][0].startswith(f"Not {what}: the runs were evaluated on different images")


def test_a_run_attacked_on_other_images_only_says_so(write_run, tmp_path: Path) -> None:
    """What several runs share may be an evaluation without an attack."""
    run = load(write_run(tmp_path / "run", checkpoints=("best",)))
    held, table = run.evaluations["best"], run.outcomes["best"]
    clean = replace(held, columns={"clean": held.columns["clean"]})
    table = replace(table, survives={"clean": table.survives["clean"]})
    shown = replace(run, evaluations={"best": clean}, outcomes={"best": table})
    subjects = subjects_of([shown])
    screen = opening(subjects, comparison.arms([shown]), [per_class(subjects[0])], find(subjects))
    assert screen.advice[0][0].startswith("Attacked on other images only;")
    assert "Attacked on other images only;" in limits(subjects)
    assert "Attacked on other images" not in str(first_screen(run.path).advice)


def test_the_symbol_of_the_radius_is_no_capital() -> None:
    assert [_capitalised(name) for name in ("ε too large", "too few epochs")] == ["ε too large", "Too few epochs"]


def test_a_run_without_an_evaluation_has_only_advice(write_run, tmp_path: Path) -> None:
    shown = first_screen(write_run(tmp_path / "run", checkpoints=()))
    assert (shown.numbers, shown.charts) == ([], [])
    assert shown.advice[0][0] == "Not evaluated yet."


@pytest.mark.parametrize("evaluated", [(), ("last",)])
def test_a_run_that_was_not_evaluated_does_not_hide_the_others(write_run, tmp_path: Path, evaluated) -> None:
    runs = (
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", "standard"),
        write_run(tmp_path / "c", method_name="trades", checkpoints=evaluated),
    )
    accuracies, differences = first_screen(*runs).charts
    assert len(accuracies.rows) == 2
    assert len(differences.rows) == 1
    assert accuracies.note == "best checkpoint, 95% intervals; not evaluated: that of TRADES"


def test_what_was_found_before_the_attacks_is_on_the_first_screen(write_run, tmp_path: Path) -> None:
    """Its numbers mean nothing then, and nobody unfolds a section to learn that."""
    (run,) = aligned([load(write_run(tmp_path / "run"))])
    said = "the logits add up to 1, as probabilities do"
    held = {name: replace(evaluation, preflight=[said]) for name, evaluation in run.evaluations.items()}
    subjects = subjects_of([replace(run, evaluations=held)])
    shown = opening(subjects, comparison.arms([subjects[0].run]), [per_class(subjects[0])], find(subjects))
    assert f"Before the attacks: {said}." in str(shown.advice)
    assert "No sign that" not in str(shown.advice)
