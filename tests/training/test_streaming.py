"""Training on images that are decoded when they are looked at is training on the images in memory."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from contracts.evaluated import table
from contracts.finished import assert_same
from regmix.cli.entry import main
from regmix.training.trainee import Trainee


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as files: 60 per class for training and 6 for testing."""
    root = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for split, first, last in (("train", 0, 60), ("test", 60, 66)):
        for digit in range(10):
            (root / split / str(digit)).mkdir(parents=True)
            for number, pixels in enumerate(images[labels == digit][first:last]):
                image = Image.fromarray((pixels.reshape(8, 8) * 15).astype("uint8"))
                image.save(root / split / str(digit) / f"{number:02}.png")
    return root


def words(folder: Path, out: Path, *more: str) -> list[str]:
    line = f"train digits-regmix --data folder --data.root {folder} --data.size 8 --epochs 2 --validation 50"
    return [*line.split(), *["--model.width", "4", "--pad", "1", "--flip", "--normalise"], "--out", str(out), *more]


def test_no_bit_differs(folder: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(words(folder, here)) == 0
    assert main(words(folder, there, "--data.stream")) == 0
    assert_same(here, there)
    row = json.loads((there / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= row["waited"] <= 1
    for run in (here, there):
        assert main(["evaluate", str(run), "--attacks", "pgd-5", "--checkpoint", "last"]) == 0
    assert table(here) == table(there)


def test_an_interrupted_one_goes_on_in_mid_epoch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(words(folder, whole, "--data.stream")) == 0
    learn: Any = Trainee.learn

    def interrupted(self: Trainee, batch: Any) -> None:
        learn(self, batch)
        if (self.progress.epoch, self.progress.step) == (1, 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainee, "learn", interrupted)
    assert main(words(folder, broken, "--data.stream")) == 130
    monkeypatch.setattr(Trainee, "learn", learn)
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)


def test_a_damaged_file_ends_the_run_with_its_name_and_it_goes_on_when_mended(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "train" / "3" / "07.png"
    content = broken.read_bytes()
    end_epoch: Any = Trainee.end_epoch

    def then_damage(self: Trainee, validation: Any) -> Any:
        broken.write_bytes(content[:30])
        return end_epoch(self, validation)

    monkeypatch.setattr(Trainee, "end_epoch", then_damage)
    assert main(words(folder, tmp_path / "run", "--data.stream")) == 2
    broken.write_bytes(content)
    monkeypatch.setattr(Trainee, "end_epoch", end_epoch)
    assert "3/07.png is not an image" in capsys.readouterr().err.splitlines()[-1]
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert main(words(folder, tmp_path / "whole", "--data.stream")) == 0
    assert_same(tmp_path / "whole", tmp_path / "run")
