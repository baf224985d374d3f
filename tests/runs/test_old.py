"""Run directories of earlier versions still open.

run-0.1: its evaluations do not name their weights, and do not count. run-0.1-subjects: its records were written before
they had types; its evaluations hold.
"""

import json
import shutil
from pathlib import Path

import pytest

import regmix
from contracts.evaluated import record
from contracts.finished import rows
from regmix.cli.entry import main
from regmix.runs import Run

MADE = Path(__file__).parents[1] / "fixtures" / "run-0.1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return shutil.copytree(MADE, tmp_path / "old")


def test_its_evaluations_are_no_results_until_they_are_made_again(old: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(old), "-o", str(page)]) == 0
    assert "Evaluations by regmix 0.1 are left out" in page.read_text()
    assert "correct without an attack" not in page.read_text()
    assert main(f"evaluate {old} --attacks fgsm --examples 30 --checkpoint last --no-verdict".split()) == 0
    assert main(["report", str(old), "-o", str(page)]) == 0
    assert f"{100 * record(old)['columns']['clean']['accuracy']:.1f}%" in page.read_text()
    assert "correct without an attack" in page.read_text()


def test_its_model_is_loaded(old: Path) -> None:
    model, classes, shape = regmix.load_model(old)
    assert (len(classes), shape) == (10, (1, 8, 8))
    assert not model.training


def test_its_training_goes_on(old: Path) -> None:
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**config, "epochs": 4}))
    before = rows(old)
    assert main(["train", "--resume", str(old)]) == 0
    assert rows(old)[:3] == before
    assert len(rows(old)) == 4
    assert Run.open(old).data() is not None


@pytest.fixture
def untyped(tmp_path: Path) -> Path:
    """A run whose records were written without types."""
    return shutil.copytree(MADE.with_name("run-0.1-subjects"), tmp_path / "untyped")


def test_evaluations_of_untyped_records_hold_and_are_added_to(untyped: Path, tmp_path: Path) -> None:
    page, before = tmp_path / "report.html", record(untyped)
    assert main(["report", str(untyped), "-o", str(page)]) == 0
    assert "outdated" not in page.read_text()
    assert f"{100 * before['columns']['clean']['accuracy']:.1f}%" in page.read_text()
    assert main(f"evaluate {untyped} --attacks fgsm,pgd-2 --examples 100 --checkpoint last --no-verdict".split()) == 0
    after = record(untyped)
    assert after["subject"] == before["subject"]
    assert list(after["columns"]) == ["clean", "fgsm@0.15", "pgd-5@0.15", "pgd-2@0.15"]
    assert after["columns"]["fgsm@0.15"]["correct"] == before["columns"]["fgsm@0.15"]["correct"]
    assert after["masking"] == {**before["masking"], "images": ""}


def test_the_records_are_written_as_they_were(untyped: Path) -> None:
    run, text = Run.open(untyped), (untyped / "metrics.jsonl").read_text()
    run.write_metrics(run.metrics())
    assert (untyped / "metrics.jsonl").read_text() == text
    before = json.loads((untyped / "result.json").read_text())
    run.save_result(run.result())
    after = json.loads((untyped / "result.json").read_text())
    assert {name: after[name] for name in before} == before
    environment = json.loads((untyped / "environment.json").read_text())
    assert run.environment().known() == {name: value for name, value in environment.items() if value is not None}
