"""Two processes under torchrun do what one does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from contracts.finished import assert_same, memory, rows, weights

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PROGRAM = str(HERE / "train.py")
WORDS = "train digits-regmix --train-examples 90 --validation 50 --epochs 3 --batch-size 19 --pad 1 --flip --seed 3"
EXACT = "--precision 64 --sync-batchnorm"


def regmix(processes: int, words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    # One thread each, which is what torchrun gives them, so that sums are added in the same order.
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | settings
    return subprocess.run(
        [*launch, PROGRAM, *words.split()],
        env=environment, cwd=HERE, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def train(processes: int, path: Path, words: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    if (path / "config.json").exists():
        return regmix(processes, f"train --resume {path}", **settings)
    model = "" if "--model" in words else "--model.width 4"
    return regmix(processes, f"{WORDS} {model} {words} --out {path}", **settings)


def finished(*words: object, **settings: str) -> None:
    done = train(*words, **settings)
    assert done.returncode == 0, done.stderr


def tensors(run: Path) -> dict[str, torch.Tensor]:
    found = {f"{name}/{key}": value for name, state in weights(run).items() for key, value in state.items()}
    return found | {f"memory/{key}": value for key, value in memory(run).items()}


def assert_close(one: Path, other: Path) -> None:
    """The same but for the order in which sums are added."""
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if value.dtype == torch.int8:  # a step's rounding may fall to either side
            assert ((value.int() - right[name].int()).abs() > 1).float().mean() < 1e-3, name
        elif value.dtype.itemsize > 2:
            torch.testing.assert_close(value, right[name], rtol=1e-6, atol=1e-8, msg=name)
    for ours, theirs in zip(rows(one), rows(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-6)
        assert ours["train_robust"] == pytest.approx(theirs["train_robust"], abs=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        "regmix",
        "regmix --awp 0.01 --averaging ema",
        "trades",
        "fgsm_pgk --averaging gated_ema",
        "atas",
        "free_at",
        "fgsm_mep",
    ],
)
def test_two_processes_with_the_same_batches_do_what_one_does(method: str, tmp_path: Path) -> None:
    words = f"--method {method} {EXACT}"
    for processes in (1, 2):
        finished(processes, tmp_path / str(processes), words, SAME_STARTS="yes")
    assert_close(tmp_path / "1", tmp_path / "2")


@pytest.mark.parametrize(
    "method",
    [
        "regmix --awp 0.01 --clip-norm 0.5 --model resnet --model.width 4",
        "fgsm_pgk --averaging gated_ema --model resnet --model.width 4",
        "trades --model function --model.source transformer:make",
    ],
)
def test_two_processes_with_sharded_weights_do_what_one_does(method: str, tmp_path: Path) -> None:
    words = f"--method {method} {EXACT} --shard-weights"
    for processes in (1, 2):
        finished(processes, tmp_path / str(processes), words, SAME_STARTS="yes", UNIT="1000")
    assert_close(tmp_path / "1", tmp_path / "2")


@pytest.mark.parametrize("more", ["", "--shard-weights"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_moves_between_one_process_and_two(before: int, after: int, more: str, tmp_path: Path) -> None:
    words = f"--method fgsm_pgk --averaging gated_ema {EXACT} {more}"
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    finished(1, whole, words, SAME_STARTS="yes")
    assert train(before, moved, words, SAME_STARTS="yes", STOP="1").returncode != 0
    assert len(rows(moved)) == 1
    finished(after, moved, SAME_STARTS="yes")
    assert_close(whole, moved)


def test_the_processes_draw_different_numbers_and_batchnorm_is_their_own(tmp_path: Path) -> None:
    words = "--method fgsm_rs --precision 64"
    for processes in (1, 2):
        finished(processes, tmp_path / str(processes), words)
    one, two = (rows(tmp_path / str(processes))[-1] for processes in (1, 2))
    assert one["loss"] != pytest.approx(two["loss"], rel=1e-6)


@pytest.mark.parametrize("more", ["", "--shard-weights"])
def test_sigterm_to_one_process_saves_the_work_of_both(more: str, tmp_path: Path) -> None:
    words = f"--method fgsm_pgk --averaging gated_ema {more}"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished(2, whole, words)
    done = train(2, broken, words, TERM="1")
    assert done.returncode != 0
    assert f"saved in epoch 2 after 2 of 5 steps; continue with: regmix train --resume {broken}" in done.stderr
    finished(2, broken)
    assert_same(whole, broken)


def test_a_dead_process_ends_the_job_with_a_line_and_the_run_goes_on(tmp_path: Path) -> None:
    words = "--method fgsm_pgk --averaging gated_ema"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished(2, whole, words)
    began = time.monotonic()
    done = train(2, broken, words, DIE="1")
    assert time.monotonic() - began < 60
    assert done.returncode != 0
    assert "another process of this work has ended; `regmix train --resume RUN` continues a training" in done.stderr
    finished(2, broken)
    assert_same(whole, broken)
