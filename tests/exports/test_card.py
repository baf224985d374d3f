"""What the model card says: the numbers of the records, and no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exports.runs import change_weights, evaluate, random_run
from regmix.evaluation.curve import curve
from regmix.exports import export
from regmix.models import SmallCnn, WideResNet
from regmix.runs import Run
from regmix.runs.evaluations import EVALUATION
from regmix.runs.files import write_record
from regmix.runs.records import Alarm, Corruptions, Environment, Epoch, Masking
from regmix.types import Sample


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return random_run(tmp_path / "run", SmallCnn(width=4))


def card(run: Run, number: int = 0) -> str:
    folder = export(run.path, "safetensors", run.path.parent / f"out{number}").folder
    return (folder / "MODEL_CARD.md").read_text()


def rows(text: str) -> list[list[str]]:
    """The rows of the tables of accuracies."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "%" in line and "95 %" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_numbers_are_those_of_the_records(run: Run) -> None:
    evaluation = evaluate(run, clean=8, pgd_50=4, autoattack=3)
    text = card(run)
    expected = [
        [f"{100 * value:.2f}%" for value in (column.accuracy, column.low, column.high)]
        for column in evaluation.columns.values()
    ]
    assert [[row[2], *row[3].split(" to ")] for row in rows(text)] == expected
    assert [row[:2] for row in rows(text)] == [["none (clean)", ""], ["pgd-50", "8/255"], ["autoattack", "8/255"]]
    assert "all 10 test images" in text
    assert evaluation.subject.weights in text
    assert "linf, eps = 8/255" in text
    assert "Attacked with autoattack, pgd-50." in text
    assert "AutoAttack was not run" not in text
    assert "Gradient masking was not probed" in text
    assert "not measured" not in text
    assert "a\\|b" in text  # a class name must not break a table


def test_evaluations_of_other_weights_are_not_shown(run: Run) -> None:
    evaluate(run, "last", clean=9, pgd_50=7)
    text = card(run)
    assert rows(text) == []
    assert "Robustness was not measured" in text
    evaluate(run, clean=8, pgd_50=4)
    assert len(rows(card(run, 1))) == 2
    change_weights(run)
    text = card(run, 2)
    assert rows(text) == []
    assert "Robustness was not measured" in text
    assert "Do not assume that they are robust" in text


def test_an_evaluation_without_an_attack_measures_no_robustness(run: Run) -> None:
    evaluate(run, clean=8)
    text = card(run)
    assert "Robustness was not measured" in text
    assert [row[2] for row in rows(text)] == ["80.00%"]


def test_smallest_perturbations_measure_robustness(run: Run) -> None:
    """Ten images: one is wrong, and at the training's 8/255 six of the others have a perturbation."""
    alone = evaluate(run, clean=9)
    lengths = np.array([0, 1, 2, 3, 4, 5, 6, 9, 10, np.inf]) / 255
    stored = run.evaluations()[0]
    write_record(stored.folder / EVALUATION, replace(alone, curve=curve(lengths, ["fmn"])))
    text = card(run)
    assert "was not measured" not in text
    assert "Attacked with fmn." in text
    assert (
        "Smallest perturbations (fmn): at most 30.00% of the images are classified correctly within eps = 8/255" in text
    )
    assert "No attack was run" not in text
    # A column whose source has changed is left out of the columns, and was no search.
    rests_on = ["fmn", "transfer:s1@8/255"]
    write_record(stored.folder / EVALUATION, replace(alone, curve=curve(lengths, rests_on)))
    assert "Smallest perturbations (fmn): at most" in card(run, 1)


def test_the_card_says_that_the_best_weights_are_an_average(run: Run) -> None:
    run.save_result(replace(run.result(), best_epoch=4, best_averaged=True))
    assert "checkpoint: best, of epoch 4 (moving average of the weights)" in card(run)
    run.save_result(replace(run.result(), best_averaged=False))
    assert "checkpoint: best, of epoch 4." in card(run, 1)


def test_samples_are_told_apart_and_warnings_are_shown(run: Run) -> None:
    evaluate(run, clean=8, pgd_50=4)
    evaluate(run, sample=Sample(10, 500, "stratified", 3), clean=7, pgd_50=2)
    stored = run.evaluations()[0]
    write_record(
        stored.folder / "evaluation.json", replace(stored.evaluation, masking=Masking("masked", ["no gradient"]))
    )
    run.save_result(replace(run.result(), alarms=[Alarm(3, "the accuracy fell", "continue")], warnings=["it diverged"]))
    text = card(run)
    assert {row[2] for row in rows(text)} == {"80.00%", "40.00%", "70.00%", "20.00%"}
    assert "10 of 500 test images, drawn evenly from the classes (seed 3)" in text
    for said in (
        "Gradient masking: masked (no gradient)",
        "it diverged",
        "epoch 3: the accuracy fell",
        "AutoAttack was not",
    ):
        assert said in text


def test_a_model_from_elsewhere_is_not_said_to_be_trained_here(run: Run) -> None:
    assert "Trained with RegMix" in card(run)
    write_record(run.path / "environment.json", Environment(source="theirs.pth"))
    text = card(run, 1)
    assert "Trained with" not in text
    assert "From elsewhere: theirs.pth" in text
    assert "How the model was trained is not known here" in text


def epochs(run: Run, done: int, planned: int, validate_every: int = 1) -> None:
    """Adds rows of metrics.jsonl."""
    for epoch in range(1, done + 1):
        validation = {"pgd": 0.3} if epoch % validate_every == 0 else None
        run.append_metrics(Epoch(epoch=epoch, epochs=planned, lr=0.1, loss=1.0, terms={}, validation=validation))


def test_the_methods_of_a_run_that_was_rolled_back_are_told_with_their_epochs(run: Run) -> None:
    epochs(run, 30, 30, validate_every=4)
    alarms = [
        Alarm(12, "it fell", "rollback"),
        Alarm(20, "it fell again", "rollback"),
        Alarm(24, "so what", "continue"),
    ]
    run.save_result(replace(run.result(), epochs=30, best_epoch=28, alarms=alarms))
    text = card(run)
    methods = "RegMix (epochs 1 to 8), then N-FGSM (epochs 9 to 16), then PGD-AT (epochs 17 to 30)"
    assert f"Trained with {methods} for 30 epochs, seed 0; checkpoint: best, of epoch 28." in text
    assert "epoch 12: it fell. The guard went back to epoch 8 and continued with N-FGSM." in text
    assert "epoch 20: it fell again. The guard went back to epoch 16 and continued with PGD-AT." in text
    assert "epoch 24: so what." in text


def test_the_length_of_a_training_is_that_of_its_epochs(run: Run) -> None:
    epochs(run, 24, 30)
    alarms = [Alarm(25, "it fell", "stop")]
    run.save_result(replace(run.result(), status="stopped", epochs=24, alarms=alarms))
    text = card(run)
    assert "RegMix for 24 of 30 epochs, when the guard against catastrophic overfitting stopped it, seed 0" in text
    assert "epoch 25: it fell. The guard stopped the training." in text


def test_means_over_corruptions_name_their_severities(run: Run) -> None:
    evaluate(run, clean=8)
    (stored,) = run.evaluations()
    accuracy = {"contrast": {1: 0.5}, "fog": {1: 0.8, 5: 0.4}, "blur": {5: 0.2}, "brightness": {1: 0.4}}
    write_record(
        stored.folder / "evaluation.json",
        replace(stored.evaluation, corruptions=[Corruptions("computed", accuracy)]),
    )
    text = card(run)
    assert "corrupted images, at severity 1 (computed): contrast 50.00%, brightness 40.00%." in text
    assert "corrupted images, mean over the severities 1, 5 (computed): fog 60.00%." in text
    assert "corrupted images, at severity 5 (computed): blur 20.00%." in text


def test_images_from_elsewhere_come_last_with_their_notes(run: Run) -> None:
    evaluate(run, elsewhere="photos", notes=["10 of 10 test images are also training images"], clean=9, pgd_50=8)
    evaluate(run, notes=["--within 2 chose 10 images"], clean=6, pgd_50=2, made="2025")
    text = card(run)
    assert [row[2] for row in rows(text)] == ["60.00%", "20.00%", "90.00%", "80.00%"]
    own, other = text.split("Other images than the run's own test split:")
    assert "On all 10 test images" in own
    assert "About the images: --within 2 chose 10 images." in own
    assert "On all 10 images of photos" in other
    assert "About the images: 10 of 10 test images are also training images." in other


def info(run: Run, number: int) -> dict[str, object]:
    """What RobustBench gets."""
    folder = export(run.path, "robustbench", run.path.parent / f"out{number}").folder
    found: dict[str, object] = json.loads((folder / "model_info.json").read_text())
    return found


def test_robustbench_gets_the_numbers_of_one_evaluation_of_the_runs_own_images(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", WideResNet(depth=10, widen=1))
    evaluate(run, elsewhere="photos", draws=7, clean=9, autoattack=8, made="2027")
    found = info(run, 0)
    assert [found[name] for name in ("clean_acc", "autoattack_acc", "number_forward_passes")] == ["", "", 1]
    evaluate(run, clean=6, autoattack=2, made="2025")
    evaluate(run, draws=3, clean=7, made="2026")
    found = info(run, 1)
    assert [found[name] for name in ("clean_acc", "autoattack_acc", "number_forward_passes")] == ["60.00", "20.00", 1]


def test_robustbench_gets_only_numbers_of_the_whole_test_split_under_autoattack(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", WideResNet(depth=10, widen=1))
    evaluate(run, sample=Sample(10, 500, "stratified"), clean=7, autoattack=2)
    evaluate(run, clean=8, pgd_50=4)
    first = info(run, 0)
    assert (first["clean_acc"], first["autoattack_acc"], first["eps"]) == ("80.00", "", "8/255")
    assert first["architecture"] == "WideResNet-10-1"
    evaluate(run, autoattack=3, clean=8)
    assert info(run, 1)["autoattack_acc"] == "30.00"
    assert {*first} == {
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture",
        "eps", "clean_acc", "reported", "autoattack_acc", "unreliable",
    }  # fmt: skip
