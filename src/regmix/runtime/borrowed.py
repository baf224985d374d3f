"""Runs a model in evaluation mode and restores its state afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from regmix.types import Model


@contextmanager
def borrowed(model: Model) -> Iterator[None]:
    """Puts a model into evaluation mode, without parameter gradients, for the length of the block.

    Afterwards every module has its old mode and every parameter its old `requires_grad`. An attack in training mode
    would be weaker, and would change the BatchNorm statistics.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)
