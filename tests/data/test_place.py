"""Commands on a run whose images were moved."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.finished import assert_same
from regmix.cli.entry import main
from regmix.training.session import Session

WORDS = "train photos --data.root photos --data.size 8 --method regmix --model small_cnn --epochs 2 --batch-size 8"


def photographs(root: Path, count: int = 12, seed: int = 0) -> None:
    for split in ("train", "test"):
        for label, level in (("dark", 60), ("light", 180)):
            (root / split / label).mkdir(parents=True)
            for n in range(count):
                noise = np.random.default_rng([seed, n, split == "test"]).integers(-40, 40, (8, 8, 3))
                Image.fromarray((level + noise).astype(np.uint8)).save(root / split / label / f"{n}.png")


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of an interrupted and a finished run, whose images were moved to new/photos."""
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "photos")
    assert main([*WORDS.split(), "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Session, "end_epoch", lambda *arguments: signal.raise_signal(signal.SIGINT))
        assert main([*WORDS.split(), "--out", "broken"]) == 130
    (tmp_path / "new").mkdir()
    shutil.move("photos", "new/photos")
    return tmp_path


@pytest.mark.parametrize("words", ["train --resume broken", "evaluate whole --attacks fgsm"])
def test_missing_images_are_named_with_the_flag_that_helps(words: str, moved: Path, capsys) -> None:
    run = words.split()[-1] if "resume" in words else "whole"
    before = {path: path.read_bytes() for path in Path(run).iterdir()}
    capsys.readouterr()
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    told = (
        f"the images of {run} were in photos, which does not exist in {moved}; say where they are now with --data.root"
    )
    assert told in error
    assert {path: path.read_bytes() for path in Path(run).iterdir()} == before


def test_a_run_goes_on_where_its_images_are_now(moved: Path, capsys, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Session, "end_epoch", lambda *arguments: signal.raise_signal(signal.SIGINT))
        assert main(["train", "--resume", "broken", "--data.root", "new/photos"]) == 130
    assert "continue with: regmix train --resume broken --data.root new/photos" in capsys.readouterr().err
    assert main(["train", "--resume", "broken", "--data.root", "new/photos"]) == 0
    assert "(next: regmix evaluate broken --data.root new/photos)" in capsys.readouterr().out
    assert_same(Path("whole"), Path("broken"))
    assert json.loads(Path("broken/config.json").read_text())["data"]["root"] == "photos"


def test_a_run_does_not_go_on_with_other_images(moved: Path, capsys) -> None:
    photographs(moved / "others", seed=1)
    before = {path: path.read_bytes() for path in Path("broken").iterdir()}
    assert main(["train", "--resume", "broken", "--data.root", "others"]) == 2
    assert "the images have changed since broken began" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("broken").iterdir()} == before


def test_a_run_without_a_folder_takes_none(tmp_path: Path, capsys) -> None:
    tiny = "--train-examples 20 --validation 10 --epochs 1 --model.width 4 --averaging none"
    assert main(f"train digits-regmix {tiny} --out {tmp_path / 'run'}".split()) == 0
    assert main(f"train --resume {tmp_path / 'run'} --data.root {tmp_path}".split()) == 2
    assert "are digits, which has no root; leave the other folder out" in capsys.readouterr().err


def test_a_diagnosis_does_without_missing_or_other_images(moved: Path, capsys) -> None:
    photographs(moved / "others", count=13, seed=1)
    for words, told in (
        ([], "were in photos, which does not exist"),
        (["--data.root", "others"], "the images have changed since whole began"),
    ):
        capsys.readouterr()
        assert main(["diagnose", "whole", *words]) == 0
        printed = capsys.readouterr().out
        assert "    without its probe: the images" in printed
        assert told in printed
    assert main(["diagnose", "whole", "--json", "--data.root", "new/photos"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["unprobed"] is None
    assert found["plain"] is not None
