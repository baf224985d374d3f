"""Long commands whose output is not read any more, or cannot be written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = "digits-regmix --train-examples 60 --validation 50 --epochs 2 --model.width 4 --averaging none --device cpu"
LOST = "the work goes on without it"


def piped(words: str, into: str, folder: Path) -> tuple[int, str]:
    """The exit code of a command whose output goes `into`, and its standard error."""
    line = f"set -o pipefail; {sys.executable} -P -m regmix {words} {into}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run whose output was closed after its first line."""
    folder = tmp_path_factory.mktemp("piped")
    code, error = piped(f"train {TINY} --out run", "| (read line)", folder)
    assert (code, error.count("\n")) == (0, 1), error
    assert f"regmix: standard output was lost (nobody reads it any more); {LOST}" in error
    return folder


def test_a_training_goes_on(folder: Path) -> None:
    assert json.loads((folder / "run" / "result.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    "into", ["| (exec <&-)", "2>&1 | (exec <&-)", "> /dev/full", "--json 2>&1 >/dev/null | (exec <&-)"]
)
def test_an_evaluation_goes_on(into: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """With standard error closed, too; on a full disk; and where standard output is for JSON."""
    seed = request.node.callspec.indices["into"]
    words = f"evaluate run --attacks fgsm --examples 20 --no-verdict --device cpu --sample-seed {seed}"
    before = len([*(folder / "run" / "evaluations").glob("*")])
    code, error = piped(words, into, folder)
    assert "Traceback" not in error
    assert len([*(folder / "run" / "evaluations").glob("*")]) > before, error
    assert code == 0, error


@pytest.mark.slow
def test_a_comparison_goes_on(folder: Path) -> None:
    words = "--methods regmix,fgsm_rs --seeds 1 --attacks clean --examples 20 --no-verdict --out compared"
    code, error = piped(f"compare {TINY.replace('digits-regmix', 'digits-regmix ' + words)}", "| (read line)", folder)
    assert code == 0, error
    assert LOST in error
    assert (folder / "compared" / "report.html").exists()


def test_what_only_prints_ends_quietly(folder: Path) -> None:
    assert piped("recipes", "| (exec <&-)", folder) == (0, "")
