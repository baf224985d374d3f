"""Formats that hold weights alone: safetensors, and a state dict with the names that RobustBench uses."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from regmix.exports.checkpoint import Checkpointed
from regmix.models import Function, build, load_weights
from regmix.runtime.files import write_atomically
from regmix.types import Model, UserError

NORMALISATION = {"normalise.mean": "mu", "normalise.std": "sigma"}
"""The buffers of an input normalisation here, and their names in RobustBench's networks, both [1, C, 1, 1]."""


def write_safetensors(chosen: Checkpointed, path: Path, facts: dict[str, object]) -> None:
    """Writes the state dict with the names of this package, and the facts as metadata."""
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    data = save(_state(chosen), metadata)
    write_atomically(path, lambda file: file.write(data))


def write_robustbench(chosen: Checkpointed, path: Path, facts: dict[str, object]) -> None:
    """Writes a state dict for torch.load. Of a network of this package the normalisation becomes `mu`, `sigma`."""
    names = {} if isinstance(chosen.experiment.model, Function) else NORMALISATION
    state = {names.get(name, name): value for name, value in _state(chosen).items()}
    write_atomically(path, lambda file: torch.save(state, file))


def write_robustbench_plain(chosen: Checkpointed, path: Path, facts: dict[str, object]) -> None:
    """Writes a state dict without the entries of the input normalisation.

    Raises:
        UserError: the model normalises its input, or is the user's own, which may do so.
    """
    if isinstance(chosen.experiment.model, Function):
        raise UserError("a model of your own is exported as it is; leave out --no-normalisation")
    state = _state(chosen)
    mean, std = (state.pop(name) for name in NORMALISATION)
    if not (bool((mean == 0).all()) and bool((std == 1).all())):
        raise UserError(
            "the model normalises its input, so without `normalise.*` it would give other logits; leave out "
            "--no-normalisation, or train without --normalise"
        )
    write_atomically(path, lambda file: torch.save(state, file))


def read_weights(chosen: Checkpointed, path: Path) -> Model:
    """A new model of the same settings with the weights of the file."""
    size = chosen.shape[1:]
    model = build(chosen.experiment.model, len(chosen.classes), chosen.shape[0], size=size)
    load_weights(model, path)
    return model.eval()


def _state(chosen: Checkpointed) -> dict[str, Tensor]:
    return load_file(chosen.run.weights(chosen.checkpoint))
