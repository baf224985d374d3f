"""The device of the tests, and waiting for a device, noticed without one."""

import os
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device(os.environ.get("REGMIX_TEST_DEVICE", "cpu"))
"""Where the tests with the marker `device` compute."""
ON_CPU = DEVICE.type == "cpu"
"""Where equal operations give equal bits. On a GPU some backward passes add in an order that changes."""


def assert_alike(one: Tensor, other: Tensor) -> None:
    """The same bits on a CPU; elsewhere the same up to rounding."""
    if ON_CPU:
        assert torch.equal(one, other)
    else:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


class NoMoves(TorchDispatchMode):
    """Fails on an operation in which tensors of two devices meet: to move one is to wait for what the device does.

    On the device `meta`, whose tensors have no values, asking for a value fails by itself.
    """

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
        assert len({tensor.device for tensor in tensors}) <= 1, f"{operation} moves a tensor"
        return result
