"""A run directory that regmix 0.1 made still opens; its evaluations, which do not name their weights, do not count."""

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
