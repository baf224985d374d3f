"""A training session: what it learns, logs and keeps."""

import json
from pathlib import Path

import pytest
import torch

from contracts.evaluated import evaluated, record, table
from regmix.attacks import parse_attacks
from regmix.cli.entry import main
from regmix.data import Digits
from regmix.evaluation.assessment import Assessment
from regmix.evaluation.questions import Questions
from regmix.runs import Run


def train(path: Path, words: str) -> list[dict]:
    assert main(f"train digits-regmix --model.width 4 --validation 100 {words} --out {path}".split()) == 0
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_regmix_learns_digits(tmp_path: Path) -> None:
    rows = train(tmp_path / "run", "--epochs 8 --model.width 8")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["validation"]["clean"] > 0.6
    assert rows[-1]["validation"]["pgd"] > 0.3


def test_the_log_adds_up_and_shows_the_weights_per_example(tmp_path: Path) -> None:
    row = train(tmp_path / "run", "--epochs 1 --train-examples 60")[0]
    assert sum(row["terms"].values()) == pytest.approx(row["loss"])
    assert 0 <= row["stats"].pop("ratio") <= 2
    assert row["stats"] == {"mutual_main_weight": 5, "mutual_aux_weight": 2, "generalise_weight": 2}
    for name, weight in (("mutual_main", 5), ("mutual_aux", 2), ("generalise", 2)):
        assert row["terms"][name] == pytest.approx(weight * row["per_example"][name], rel=1e-5)


def test_best_is_the_epoch_of_the_highest_validation_accuracy_and_test_images_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Digits.read

    def guarded(self, split: str):
        assert split == "train", "training read the test split"
        return real(self, split)

    monkeypatch.setattr(Digits, "read", guarded)
    rows = train(tmp_path / "run", "--epochs 6 --validate-every 2")
    validated = {row["epoch"]: row["validation"]["pgd"] for row in rows if row["validation"]}
    assert list(validated) == [2, 4, 6]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best_epoch"] == max(
        validated, key=lambda epoch: validated[epoch]
    )


def test_standard_training_has_its_best_weights_by_clean_accuracy(tmp_path: Path) -> None:
    """Under an attack a network that answers one class only would be the best of them."""
    rows = train(tmp_path / "run", "--method standard --threat.eps 0.4 --epochs 5")
    clean = [row["validation"]["clean"] for row in rows]
    assert max(clean) > max(clean[:1])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best_epoch"] == 1 + clean.index(max(clean))


def test_the_guard_and_the_saved_states_know_the_past_without_the_file(tmp_path: Path, monkeypatch) -> None:
    def metrics(self: Run) -> list[dict]:
        raise AssertionError("training read metrics.jsonl")

    monkeypatch.setattr(Run, "metrics", metrics)
    rows = train(tmp_path / "run", "--epochs 3 --train-examples 60 --guard.action rollback")
    state = torch.load(max((tmp_path / "run").glob("state-*.pt")), weights_only=True)
    assert state["rows"] == rows


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path: Path, capsys) -> None:
    words = f"train digits-regmix --epochs 5 --lr 1e6 --train-examples 60 --validation 50 --out {tmp_path / 'run'}"
    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert "not finite" in told
    assert told.count("\n") == 1


class Silent:
    def stage(self, description: str, left: int) -> None: ...
    def work(self, amount: int) -> None: ...
    def note(self, text: str) -> None: ...
    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float, cost: str) -> None: ...


def test_an_evaluation_leaves_a_row_per_example_that_agrees_with_its_summary(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(path, "--epochs 2 --train-examples 200")
    questions = Questions(parse_attacks("clean,pgd-3"), [0.1, 0.2], 60, 25)
    Assessment(Run.open(path), questions).run([], "cpu", Silent())
    assert evaluated(path) == {"best", "last", "averaged"}
    for checkpoint in evaluated(path):
        evaluation = record(path, checkpoint)
        header, *rows = table(path, checkpoint)
        assert header == ["index", "label", "clean", "pgd-3@0.1", "pgd-3@0.2"]
        assert len(rows) == evaluation["subject"]["sample"]["count"] == 60
        for place, name in enumerate(header[2:], 2):
            column = evaluation["columns"][name]
            assert sum(int(row[place]) for row in rows) == column["correct"]
            assert column["accuracy"] == column["correct"] / 60
            assert column["low"] <= column["accuracy"] <= column["high"]
        assert all(row[2] >= row[3] for row in rows)


def test_gradients_are_clipped_and_weights_perturbed_when_asked(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", "--epochs 2 --train-examples 60")
    clipped = train(tmp_path / "clipped", "--epochs 2 --train-examples 60 --clip-norm 1e-9 --weight-decay 0")
    perturbed = train(tmp_path / "perturbed", "--epochs 2 --train-examples 60 --awp 0.01 --awp-warm-up 1")
    assert clipped[0]["terms"]["classify"] == pytest.approx(plain[0]["terms"]["classify"])
    # Steps that are next to nothing leave the loss where it was.
    assert clipped[1]["terms"]["classify"] == pytest.approx(clipped[0]["terms"]["classify"], rel=0.01)
    assert abs(plain[1]["terms"]["classify"] / plain[0]["terms"]["classify"] - 1) > 0.02
    assert perturbed[0]["loss"] == plain[0]["loss"]
    assert perturbed[1]["loss"] > plain[1]["loss"]
