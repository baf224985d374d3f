"""What a run directory holds, but for times: two trainings that must not differ are compared by it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

TIMES = ("images_per_second", "waited", "seconds")


def rows(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def weights(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of every file of weights."""
    return {path.name: load_file(path) for path in run.glob("*.safetensors")}


def memory(run: Path) -> dict[str, torch.Tensor]:
    """The per-sample memory of the last state; nothing where the method has none."""
    found: dict[str, torch.Tensor] | None = torch.load(max(run.glob("state-*.pt")), weights_only=True)["memory"]
    return found or {}


def assert_same_weights(one: Path, other: Path) -> None:
    """Weights are the same, bit for bit."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name, state in left.items():
        assert state.keys() == right[name].keys(), name
        assert all(torch.equal(value, right[name][key]) for key, value in state.items()), name


def assert_same(one: Path, other: Path) -> None:
    """Metrics, weights and memories are the same, bit for bit."""
    assert rows(one) == rows(other)
    assert_same_weights(one, other)
    left, right = memory(one), memory(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[key]) for key, value in left.items())
