"""Convolutions that a CPU computes wrongly in bfloat16."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regmix.runtime.borrowed import same_buffers
from regmix.types import Images

TOLERANCE = 0.03
"""Of the largest output. Rounding it to bfloat16 changes it by 0.004; a wrong convolution has nothing in common."""
CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten._convolution.default)
"""The second is that of traced models; its further arguments choose among libraries."""


def wrong_convolution(model: nn.Module, x: Images) -> str | None:
    """Describes a convolution of a model that this CPU computes wrongly in bfloat16; None if none is found.

    oneDNN in torch 2.13, on CPUs with AMX: the outputs of some convolutions are wrong, among them those of 16 channels
    with kernel 4 and stride 4, and so are the gradients of transposed convolutions, which are computed in the same
    way. Both are measured. And where a padded map is smaller than the stride, the gradient of the weights that see only
    padding is uninitialised memory; that follows from the sizes, because such memory often holds zeros. The model runs
    in the mode that it is in; its statistics and the random state stay as they were. Only what the model computes on
    these images is seen.

    Args:
        x: images [B, C, H, W] on the CPU, as many as will be computed at once: oneDNN chooses how by their number.
    """
    found = _Compared({p.data_ptr() for p in model.parameters() if not p.requires_grad})
    # The model may fail in any way, which its next caller reports.
    with suppress(Exception), torch.random.fork_rng([]), same_buffers(model), torch.no_grad(), found:
        model(x.contiguous(memory_format=torch.channels_last))
    return found.wrong


class _Compared(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes every convolution in bfloat16, too."""

    def __init__(self, frozen: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wrong: str | None = None
        self._frozen = frozen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func in CONVOLUTIONS and self.wrong is None:
            self.wrong = self._fault(answer, args[:9])
        return answer

    def _fault(self, answer: Tensor, args: Any) -> str | None:
        x, weight, _, stride, padding, dilation, transposed, _, groups = args
        kernel = "x".join(map(str, weight.shape[2:]))
        told = f"with kernel {kernel} and stride {max(stride)} from {x.shape[1]} to {answer.shape[1]} channels"
        told = f"a {'transposed ' if transposed else ''}convolution {told}"
        sides = (answer if transposed else x).shape[2:]
        small = any(side < step and pad for side, step, pad in zip(sides, stride, padding, strict=False))
        if small and weight.data_ptr() not in self._frozen:
            return f"the gradient of {told}, whose map is smaller than its stride,"
        if not _agrees(args):
            return told
        if transposed and not _agrees((answer, weight, None, stride, padding, dilation, False, [0], groups)):
            return f"the gradient of {told}"
        return None


def _agrees(args: Any) -> bool:
    convolution = torch.ops.aten.convolution.default
    rounded = [value.bfloat16() if isinstance(value, Tensor) else value for value in args]
    exact = convolution(*(value.float() if isinstance(value, Tensor) else value for value in rounded))
    size = exact.abs().max()
    if not 1e-30 < size < float("inf"):  # nothing to compare
        return True
    return bool((convolution(*rounded).float() - exact).abs().max() <= TOLERANCE * size)
