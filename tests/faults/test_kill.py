"""A training that is killed at any moment, and resumed, ends as one that is not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from contracts.finished import rows, weights
from regmix.cli.entry import main

WORDS = "train digits-regmix --method fgsm_pgk --averaging ema --train-examples 400 --validation 50 --epochs 6 "
WORDS += "--model.width 8 --pad 1 --flip --guard.action rollback --seed 1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    path, began = tmp_path_factory.mktemp("runs") / "whole", time.perf_counter()
    assert main([*WORDS.split(), "--out", str(path)]) == 0
    return path, time.perf_counter() - began


def content(run: Path) -> dict[str, object]:
    state = torch.load(max(run.glob("state-*.pt")), weights_only=True)
    del state["seconds"], state["rows"]  # the rows are compared below, without their times
    return {
        "rows": rows(run),
        "weights": weights(run),
        "state": state,
    }


def assert_equal(one: object, other: object, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, parts in enumerate(zip(one, other, strict=True)):
            assert_equal(*parts, f"{where}[{number}]")
    else:
        assert one == other, where


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_a_killed_run_ends_bit_for_bit_as_it_would_have(seed: int, whole: tuple[Path, float], tmp_path: Path) -> None:
    reference, seconds = whole
    path = tmp_path / "run"
    program = [sys.executable, str(Path(__file__).with_name("killed.py")), str(seed), str(seconds)]
    words, kills = [*WORDS.split(), "--out", str(path)], 0
    for attempt in range(4):
        # a resumed training may die, too
        done = subprocess.run(
            [*program[:2], str(seed + 100 * attempt), program[3], *words], capture_output=True, text=True
        )
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        kills += 1
        if (path / "config.json").exists():
            words = ["train", "--resume", str(path)]
    assert kills or seed % 2, "a death at a write always comes"
    if done.returncode:
        assert main(words) == 0
    assert_equal(content(reference), content(path))
    left = [file.name for file in path.iterdir() if file.name.startswith(".") and file.suffix != ".lock"]
    assert not left, "what a killed write left behind is cleaned up"
