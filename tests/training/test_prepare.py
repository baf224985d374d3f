"""What is decided before a training begins."""

import json
from pathlib import Path

import pytest

from regmix.cli.entry import main
from regmix.runtime import devices

WORDS = "train digits-regmix --model own:strided --train-examples 60 --validation 50 --epochs 1"
NETWORK = """
from torch import nn

def strided(classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 8, stride=8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Flatten(),
        nn.Linear(8, classes),
    )
"""


def test_bfloat16_is_left_out_where_this_cpu_computes_it_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second convolution has a map of one pixel, and a stride of two."""
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: True)
    (tmp_path / "own.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = WORDS.split()
    out = tmp_path / "run"
    assert main([*words, "--precision", "bf16", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "in bfloat16 this CPU computes the gradient of a convolution with kernel 3x3 and stride 2 from 8" in error
    assert error.endswith("wrongly; begin a new run with --precision 32\n")
    assert not out.exists()
    assert main([*words, "--precision", "auto", "--out", str(out)]) == 0
    said = "".join(capsys.readouterr())
    assert "wrongly; the training computes in float32" in said
    assert "cpu, float32" in said
    assert json.loads((out / "environment.json").read_text())["precision"] == "32"
    assert main(["train", "--resume", str(out), "--epochs", "2", "--model.source", "own:strided"]) == 0


def test_the_module_of_a_users_model_may_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name says where the code is; the code itself is compared."""
    (tmp_path / "own.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "run"
    assert main([*WORDS.split(), "--out", str(out)]) == 0
    (tmp_path / "own.py").rename(tmp_path / "renamed.py")
    config = (out / "config.json").read_text()
    (out / "config.json").write_text(config.replace("own:strided", "renamed:strided"))
    words = ["evaluate", str(out), "--attacks", "clean", "--examples", "20", "--no-verdict"]
    assert main([*words, "--model.source", "renamed:strided"]) == 0
    assert main(["train", "--resume", str(out), "--epochs", "2", "--model.source", "renamed:strided"]) == 0
