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
from regmix.types import UserError

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


class Flat(nn.Module):
    """Logits a thousand times too large: the cross-entropy has no gradient in float32, differences of logits have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = Brightness()(x) * 1e4
        return torch.cat([logits, logits.amin(1, keepdim=True) - 1e4], 1)


class Steps(nn.Module):
    """Rounds the image to halves before it looks, so that there is no gradient; still differentiable in name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Brightness()((x * 2).round() / 2) + 0 * x.sum((1, 2, 3))[:, None]


def told(model: nn.Module, files: list[Path], lines: list[str] | None = None) -> list[tuple[str, float | None, bool]]:
    classes = tuple("abc"[: model(torch.zeros(1, 3, 4, 4)).shape[1]])
    threats = [Linf(levels / 255) for levels in (4, 12)]
    said = [] if lines is None else lines
    found = predictions(Trained(model.eval(), classes, (3, 4, 4)), files, CPU, 2, said.append, threats)
    return [(answer.label, answer.breaks_at, answer.attacked) for answer in found]


def test_a_flat_cross_entropy_does_not_hide_a_change(tmp_path: Path) -> None:
    files = grey_files(tmp_path, 117, 131, 200)
    assert told(Flat(), files) == [("a", 12 / 255, True), ("b", 4 / 255, True), ("b", None, True)]


def test_a_radius_is_one_of_those_that_were_asked_for(tmp_path: Path) -> None:
    ((_, radius, _),) = told(Brightness(), grey_files(tmp_path, 131))
    assert radius == 4 / 255


def test_where_no_attack_has_a_gradient_nothing_is_claimed(tmp_path: Path) -> None:
    assert told(Steps(), grey_files(tmp_path, 40, 230)) == [("a", None, False), ("b", None, False)]


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_without_finite_logits_has_no_class(level: int, tmp_path: Path) -> None:
    class Standardised(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Brightness()(x / x.flatten(1).std(1)[:, None, None, None])

    files = grey_files(tmp_path, level)
    other = tmp_path / "other.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5).save(other)
    lines: list[str] = []
    assert len(told(Standardised(), [*files, other], lines)) == 1
    assert lines == [f"left out: the model's logits for {files[0]} are not finite"]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda logits: logits + torch.rand_like(logits), "the model is random"),
        (lambda logits: logits.softmax(1), "probabilities"),
    ],
)
def test_what_makes_answers_doubtful_is_said(change, finding: str, tmp_path: Path) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(Brightness()(x))

    lines: list[str] = []
    told(Changed(), grey_files(tmp_path, 110, 140, 150), lines)
    assert len(lines) == 1
    assert finding in lines[0]


def test_a_model_without_a_gradient_is_refused(tmp_path: Path) -> None:
    class Decides(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Brightness()(x).detach()

    with pytest.raises(UserError, match="no gradient flows"):
        told(Decides(), grey_files(tmp_path, 110))
