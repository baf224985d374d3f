"""A run that was interrupted ends as if it had not been."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from regmix.cli import main
from regmix.training import loop

TINY = "--train-examples 60 --validation 50 --epochs 4 --model.width 4 --pad 1 --flip --seed 3"
TIMES = ("images_per_second", "seconds")


def weights(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path) for path in run.glob("*.safetensors")}


def rows(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def assert_same(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name, state in left.items():
        assert all(torch.equal(value, right[name][key]) for key, value in state.items()), name
    memories = [torch.load(max(run.glob("state-*.pt")), weights_only=True)["memory"] for run in (one, other)]
    if memories[0] is not None:
        assert all(torch.equal(value, memories[1][key]) for key, value in memories[0].items())


@pytest.mark.parametrize(
    "method",
    [
        "--method regmix",
        "--method regmix --method.start carried --averaging none",
        "--method fgsm_pgk --averaging gated_ema --method.reset 3",
    ],
)
@pytest.mark.parametrize("epochs_before", [0, 1, 3])
def test_resuming_is_exact(method: str, epochs_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(f"train digits-regmix {method} {TINY} --out {whole}".split()) == 0

    real, calls = loop._validate, []

    def interrupted(*arguments: Any, **more: Any) -> dict[str, float]:
        calls.append(0)
        averages = 1 if "--averaging none" in method else 2
        if len(calls) > epochs_before * averages:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(loop, "_validate", interrupted)
    assert main(f"train digits-regmix {method} {TINY} --out {broken}".split()) == 130
    assert len(rows(broken)) == epochs_before
    monkeypatch.setattr(loop, "_validate", real)
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)


@pytest.mark.parametrize("harm", ["cut off", "a changed byte", "emptied"])
def test_a_run_whose_last_state_is_damaged_goes_on_from_the_one_before(harm: str, tmp_path: Path, capsys) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(f"train digits-regmix {TINY} --out {whole}".split()) == 0
    shutil.copytree(whole, broken)
    before, last = sorted(broken.glob("state-*.pt"))
    content = last.read_bytes()
    middle = len(content) // 2
    bad = {"cut off": content[:middle], "emptied": b""}
    last.write_bytes(bad.get(harm, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]))
    capsys.readouterr()
    assert main(["train", "--resume", str(broken)]) == 0
    told = capsys.readouterr().out
    assert told.count("WARNING") == 1
    assert f"WARNING {last} is damaged" in told
    assert "epoch   4/4" in told
    assert "epoch   3/4" not in told
    assert_same(whole, broken)

    for path in broken.glob("state-*.pt"):
        path.write_bytes(b"nothing")
    assert main(["train", "--resume", str(broken)]) == 2
    assert "is damaged and the run cannot be resumed from it; nor from the one before" in capsys.readouterr().err
    assert before.name not in {path.name for path in broken.glob("state-*.pt")}


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(f"train digits-regmix {TINY} --out {run}".split()) == 0
    before = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    assert main(["train", "--resume", str(run)]) == 0
    assert {path.name: path.read_bytes() for path in run.glob("*.safetensors")} == before


def test_a_run_is_repeated_from_its_config(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(f"train digits-regmix {TINY} --out {first}".split()) == 0
    assert main(f"train --from {first} --out {second}".split()) == 0
    assert_same(first, second)
