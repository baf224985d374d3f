"""The class of image files, and the radius at which it changes."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from regmix.cli.entry import main
from regmix.evaluation.prediction import predictions
from regmix.runs.load import Trained, load_model
from regmix.threats import Linf

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Says "light" if the mean of all pixels is above one half, with a slope of 20."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([torch.zeros_like(light), light], 1)


def grey_files(folder: Path, *levels: int) -> list[Path]:
    files = []
    for level in levels:
        files.append(folder / f"{level}.png")
        Image.fromarray(np.full((4, 4, 3), level, dtype=np.uint8)).save(files[-1])
    return files


def test_classes_probabilities_and_radii_have_their_closed_form(tmp_path: Path) -> None:
    files = grey_files(tmp_path, 117, 131, 200)  # 127.5 is in the middle
    trained = Trained(Brightness().eval(), ("dark", "light"), (3, 4, 4))
    threats = [Linf(levels / 255) for levels in (2, 4, 12)]
    found = list(predictions(trained, files, CPU, 2, pytest.fail, threats))
    assert [answer.file for answer in found] == files
    assert [answer.label for answer in found] == ["dark", "light", "light"]
    # 10.5 levels away, 3.5, and 72.5
    assert [answer.breaks_at for answer in found] == pytest.approx([12 / 255, 4 / 255, None])
    distance = 20 * (117 / 255 - 0.5)
    assert found[0].probability == pytest.approx(1 / (1 + np.exp(distance)), rel=1e-5)


def test_files_that_cannot_be_read_are_named_and_left_out(tmp_path: Path) -> None:
    files = grey_files(tmp_path, 10, 250)
    files.insert(1, tmp_path / "broken.png")
    files[1].write_bytes(files[0].read_bytes()[:40])
    lines: list[str] = []
    found = list(predictions(Trained(Brightness(), ("dark", "light"), (3, 4, 4)), files, CPU, 2, lines.append))
    assert [answer.label for answer in found] == ["dark", "light"]
    assert len(lines) == 1
    assert "broken.png" in lines[0]


def test_the_command_agrees_with_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train = f"train digits-regmix --train-examples 100 --validation 50 --model.width 4 --epochs 2 --out {run}"
    assert main(train.split()) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    capsys.readouterr()
    assert main(f"predict {run} {tmp_path} --csv --eps 0.001,0.9 --checkpoint last".split()) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    trained = load_model(run, "last")
    with torch.no_grad():
        wanted = trained.model(torch.from_numpy(pixels)[:, None] / 255).softmax(1).max(1)
    assert [row["file"] for row in rows] == [str(tmp_path / f"{number}.png") for number in range(3)]
    assert [row["class"] for row in rows] == [trained.classes[label] for label in wanted.indices.tolist()]
    assert [float(row["probability"]) for row in rows] == pytest.approx(wanted.values.tolist(), abs=6e-5)
    assert {row["breaks_at"] for row in rows} <= {"0.001", "0.9", ""}
    assert main(f"predict {run} {tmp_path}/0.png --eps 0.001".split()) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/0.png  {rows[0]['class']}  ")


@pytest.mark.parametrize(
    ("words", "said"), [("", "needs images"), ("missing.png", "missing.png does not exist"), (". --eps small", "small")]
)
def test_mistakes_are_one_line(words: str, said: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    grey_files(tmp_path, 10)
    assert main(f"predict run {words}".split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
