"""Borrows a model without leaving traces."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from regmix.types import Model


@contextmanager
def borrowed(model: Model) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside the block; every mode and flag is put back after it.

    A train-mode attack would be weaker and would silently change BatchNorm's statistics.
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
