"""Runs a model and restores its state afterwards: modes, gradients or buffers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

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
    """Restores a model's buffers after the block: their values, and those that the model has replaced by others.

    That a buffer was written cannot be read from its version, which BatchNorm's statistics do not count. Tensors that
    cannot be written keep their values: expanded ones, and those of inference mode.
    """
    saved = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, buffer, value in saved:
                if not (buffer.is_inference() or _is_expanded(buffer)):
                    buffer.copy_(value)
                if owner[name] is not buffer:
                    owner[name] = buffer


def _is_expanded(tensor: Tensor) -> bool:
    return any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))
