"""bfloat16 on a CPU that has no arithmetic for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

_LAYERS: frozenset[Callable[..., Any]] = frozenset(
    [
        *(torch.conv1d, torch.conv2d, torch.conv3d),
        *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        *(F.linear, F.scaled_dot_product_attention),
        *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm),
        *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm),
    ]
)
"""What autocast computes in bfloat16, as layers call it. What else it computes so is left to torch, which is slow:
einsum, of which it rounds only products of matrices, and recurrent layers."""


@contextmanager
def rounded_autocast() -> Iterator[None]:
    """bfloat16 autocast whose layers compute in float32: they round their inputs to bfloat16, and their output.

    That is what hardware with bfloat16 arithmetic does, which adds products of bfloat16 numbers in float32; gradients
    pass through the same roundings. The numbers differ from those of such hardware where sums in another order round
    the other way.
    """
    with torch.autocast("cpu", torch.bfloat16), _Rounded():
        yield


class _Rounded(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _LAYERS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, _rounded, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            answer = func(*args, **kwargs)
        return answer.bfloat16() if answer.dtype == torch.float32 else answer


def _rounded(value: Tensor) -> Tensor:
    """As autocast does, which leaves float64 and integers as they are."""
    return value.bfloat16().float() if value.dtype in (torch.float32, torch.float16, torch.bfloat16) else value
