"""The states from which a training is resumed: their names and how they are read."""

import pickle
from pathlib import Path
from typing import Any

import torch

from regmix.runtime.files import digest

STATE = "state-{:06d}-{}.pt"
HEALTHY = "healthy-{:06d}-{}.pt"


def states(folder: Path, pattern: str) -> list[Path]:
    """The states of this kind, newest first."""
    return sorted(folder.glob(pattern.replace("{:06d}", "*").format("*")), key=number_of, reverse=True)


def number_of(state: Path) -> int:
    """How many states had been saved with this one."""
    return int(state.name.split("-")[1])


def load_state(path: Path) -> dict[str, Any] | None:
    """The content of a state whose name ends with its checksum; None if it is damaged."""
    return _loaded(path)


def glance(path: Path) -> dict[str, Any]:
    """The content of a state whose tensors are not read before they are used; empty if it is damaged."""
    return _loaded(path, mmap=True) or {}


def _loaded(path: Path, **more: Any) -> dict[str, Any] | None:
    try:
        if digest(path) != path.stem.split("-")[2]:
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, **more)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return None
    return state
