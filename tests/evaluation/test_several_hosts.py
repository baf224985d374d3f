"""Separate processes that were started with the same command share an evaluation through the folder."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contracts.evaluated import journals, record, table
from regmix.cli.entry import main

TINY = "--train-examples 300 --validation 50 --epochs 5 --model.width 6 --averaging none --method standard"
FLAGS = "--attacks pgd-20,square-200,pgd-10x4 --eps 0.1 --examples 160 --batch-size 10 --checkpoint last --exact"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(f"train digits-regmix {TINY} --out {path}".split()) == 0
    return path


def start(path: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "regmix", "evaluate", str(path), *FLAGS.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def lines(path: Path) -> dict[str, int]:
    """How many chunks each process has finished so far."""
    files = (path / "evaluations").glob("*/journal-*.jsonl")
    return {file.name: sum('"chunk"' in line for line in file.read_text().splitlines()) for file in files}


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed_end_with_the_table_of_one(run, tmp_path) -> None:
    one, shared = (shutil.copytree(run, tmp_path / name) for name in ("one", "shared"))
    assert main(["evaluate", str(one), *FLAGS.split()]) == 0
    processes = [start(shared) for _ in range(3)]
    try:
        deadline = time.monotonic() + 200
        while sum(count > 4 for count in lines(shared).values()) < 3:
            assert time.monotonic() < deadline, "three processes at work"
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        processes[0].send_signal(signal.SIGKILL)
        told = [process.communicate(timeout=300)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 0, 0], told
    assert table(shared) == table(one)
    assert not journals(shared), "the last one has deleted them"
    columns = [record(path)["columns"] for path in (one, shared)]
    costs = [{name: (c["cost"]["forward"], c["cost"]["backward"]) for name, c in each.items()} for each in columns]
    assert costs[0] == costs[1], "no chunk counts twice"
    # Both that lived tell the same table.
    accuracies = [[line.split("]")[0] for line in text.splitlines() if "@0.1 " in line] for text in told[1:]]
    assert accuracies[0] == accuracies[1] != []


@pytest.mark.slow
def test_a_file_of_weights_given_to_two_processes_at_once_makes_one_directory(run, tmp_path) -> None:
    out = tmp_path / "out"
    words = f"evaluate {run / 'last.safetensors'} --data digits --model small_cnn --model.width 6 --threat.eps 0.1"
    command = [
        sys.executable,
        "-m",
        "regmix",
        *words.split(),
        "--attacks",
        "pgd-5",
        "--examples",
        "40",
        "--out",
        str(out),
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    told = [process.communicate(timeout=300)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(table(out)) == 41
    assert not journals(out)
