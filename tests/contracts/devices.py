"""Waiting for a device, noticed without one."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoMoves(TorchDispatchMode):
    """Fails on an operation in which tensors of two devices meet: to move one is to wait for what the device does.

    On the device `meta`, whose tensors have no values, asking for a value fails by itself.
    """

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
        assert len({tensor.device for tensor in tensors}) <= 1, f"{operation} moves a tensor"
        return result
