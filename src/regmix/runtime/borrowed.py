"""Runs a model and restores its state afterwards: modes, gradients or buffers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from regmix.types import Model


@contextmanager
def borrowed(model: Model) -> Iterator[None]:
    """Puts a model into evaluation mode, without parameter gradients, for the length of the block.

    Evaluation mode is what the model's own `eval()` leaves: a model may keep its dropout on in it. Afterwards every
    module has its old mode and every parameter its old `requires_grad`. An attack in training mode would be weaker, and
    would change the BatchNorm statistics.
    """
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    flags = [parameter.requires_grad for parameter in parameters]
    with same_modes(model):
        try:
            if isinstance(model, nn.Module):
                _into(model, train=False)
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, flag in zip(parameters, flags, strict=True):
                parameter.requires_grad_(flag)


@contextmanager
def same_modes(model: Model) -> Iterator[None]:
    """Restores the modes of a model's modules after the block; a function has none.

    A model that was in train mode is put into it by its own `train()`, which may undo what its `eval()` has done, such
    as merging weights.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        if isinstance(model, nn.Module) and modes[0] and not model.training:
            _into(model, train=True)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _into(model: nn.Module, *, train: bool) -> None:
    try:
        model.train(train)
    except NotImplementedError:  # a module of torch.export, which has one mode
        for module in model.modules():
            module.training = train


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Restores the values of a model's buffers after the block."""
    saved = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), saved, strict=True):
                buffer.copy_(value)
