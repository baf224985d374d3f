"""Runs of the command line on the device of the tests: training by every method, resuming, evaluating and reporting."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts import finished
from contracts.devices import DEVICE, ON_CPU
from contracts.evaluated import record
from regmix.cli.entry import main
from regmix.methods import METHODS
from regmix.training.trainee import Trainee

# On a CPU tests elsewhere ask the same in more detail.
pytestmark = [pytest.mark.device, *([pytest.mark.slow] if ON_CPU else [])]
TINY = f"--train-examples 60 --validation 50 --batch-size 20 --model.width 4 --pad 1 --flip --device {DEVICE.type}"


def train(path: Path, words: str) -> int:
    return main(f"train digits-regmix {TINY} {words} --out {path}".split())


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits on a CPU. Elsewhere the weights are alike: a step along signs makes much of the last bit."""
    if ON_CPU:
        finished.assert_same(one, other)
        return
    left, right = finished.weights(one), finished.weights(other)
    assert left.keys() == right.keys()
    for name, state in left.items():
        for key, value in state.items():
            torch.testing.assert_close(value, right[name][key], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method: str, tmp_path: Path) -> None:
    assert train(tmp_path / "run", f"--method {method} --epochs 2 --awp 0.005 --clip-norm 1") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert not rows[0]["lost_steps"]
    assert rows[1]["loss"] == pytest.approx(sum(rows[1]["terms"].values()))
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["device"].startswith("cpu") == ON_CPU


@pytest.mark.parametrize(
    "words",
    ["--method regmix --averaging gated_ema --cuda-graph on", "--method fgsm_pgk --cuda-graph off", "--method liet"],
)
def test_an_interrupted_run_goes_on(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(whole, f"{words} --epochs 4") == 0
    learn, calls = Trainee.learn, []

    def signalled(self: Trainee, batch: Any) -> None:
        calls.append(0)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainee, "learn", signalled)
        assert train(broken, f"{words} --epochs 4") == 130
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same_run(whole, broken)


@pytest.mark.parametrize(
    ("precision", "attacks"),
    [("32", "clean,pgd-3,autoattack-screened"), ("bf16", "cw-5,apgd-ce,fab-t"), ("64", "mi-fgsm-3,apgd-t")],
)
def test_a_run_is_evaluated_and_reported(precision: str, attacks: str, tmp_path: Path) -> None:
    run, page = tmp_path / "run", tmp_path / "report.html"
    assert train(run, f"--epochs 2 --averaging ema --precision {precision}") == 0
    words = f"evaluate {run} --attacks {attacks} --examples 8 --eps 0.05 --device {DEVICE.type} --checkpoint all"
    assert main(words.split()) == 0
    for checkpoint in ("best", "last", "averaged"):
        assert record(run, checkpoint)["columns"]
    assert main(["report", str(run), "-o", str(page)]) == 0
    assert "<html" in page.read_text()
