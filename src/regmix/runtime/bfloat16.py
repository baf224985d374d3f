"""Convolutions that a CPU computes wrongly in bfloat16."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regmix.runtime.borrowed import borrowed
from regmix.types import Images

TOLERANCE = 0.03
"""Of the largest output. Rounding it to bfloat16 changes it by 0.004; a wrong convolution has nothing in common."""


def wrong_convolution(model: nn.Module, x: Images) -> str | None:
    """Describes a convolution of a model that this CPU computes wrongly in bfloat16; None if there is none.

    oneDNN in torch 2.13, on CPUs with AMX: the outputs of some convolutions are wrong, among them those of 16 channels
    with kernel 4 and stride 4; and if a padded map is smaller than the stride, the gradient of the weights that see
    only padding is uninitialised memory. The first is measured. The second follows from the sizes, because such memory
    often holds zeros. The model's mode, statistics and the random state stay as they were.

    Args:
        x: images [B, C, H, W] on the CPU, as many as will be computed at once: oneDNN chooses how by their number.
    """
    found = _Compared()
    with torch.random.fork_rng([]), borrowed(model), torch.no_grad(), found:
        try:
            model(x.contiguous(memory_format=torch.channels_last))
        except Exception:  # the next caller of the model reports it
            return None
    return found.wrong


class _Compared(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes every convolution in bfloat16, too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wrong: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and self.wrong is None:
            x, weight, _, stride, padding, *_, transposed, _, _ = args
            kernel = "x".join(map(str, weight.shape[2:]))
            told = f"with kernel {kernel} and stride {max(stride)} from {x.shape[1]} to {answer.shape[1]} channels"
            small = any(side < step for side, step in zip(x.shape[2:], stride, strict=False)) and any(padding)
            if small and not transposed:
                self.wrong = f"the gradient of a convolution {told}, whose map is smaller than its stride,"
            elif not _agrees(func, args):
                self.wrong = f"a convolution {told}"
        return answer


def _agrees(convolution: Any, args: Any) -> bool:
    rounded = [value.bfloat16() if isinstance(value, Tensor) else value for value in args]
    exact = convolution(*(value.float() if isinstance(value, Tensor) else value for value in rounded))
    difference = (convolution(*rounded).float() - exact).abs().max()
    return bool(difference <= TOLERANCE * exact.abs().max())
