"""Memory layout of a model: channels_last, which is faster, unless the model fails in it."""

from typing import Any

import torch
from torch import Tensor, nn

from regmix.objectives import precise
from regmix.runtime.borrowed import borrowed
from regmix.types import Images

BLOCK = 16
"""Channels that oneDNN computes at once, at most: 8 with AVX2, 16 with AVX-512."""


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Moves a model to the device, in channels_last unless it must stay contiguous."""
    if _meets_onednn_fault(model, device):
        _keep_contiguous(model)
    if is_contiguous(model):
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def is_contiguous(model: nn.Module) -> bool:
    """Whether a model must stay contiguous."""
    if isinstance(model, torch.jit.ScriptModule):
        return True
    return any(hook is _contiguous for hook in model._forward_pre_hooks.values())


def settle(model: nn.Module, x: Images) -> str | None:
    """Brings a model into channels_last; if it fails there or gives other logits, keeps it contiguous.

    A model that stays contiguous gets a hook that makes its inputs contiguous; copies of the model keep the hook. The
    model's mode, gradients, statistics and the random state stay as they were.

    Args:
        x: a few contiguous images [B, C, H, W] on the model's device, which the model can take.

    Returns:
        A line for the user where the model stays contiguous, else None.
    """
    if isinstance(model, torch.jit.ScriptModule):  # takes no hook
        return None
    if _meets_onednn_fault(model, x.device):
        _keep_contiguous(model)
        return None
    try:
        expected = _pass(model, _row_by_row(x))
    except Exception:  # the model fails in any layout; its next caller reports that
        return None
    try:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = _pass(model, x.contiguous(memory_format=torch.channels_last))
        if float((logits - expected).abs().max()) <= 0.05 * float(expected.abs().max()):
            return None
        reason = "gives other logits in"
    except Exception:
        reason = "fails in"
    _keep_contiguous(model)
    return f"the model {reason} channels_last (does it use .view? try .reshape); it runs contiguous, which is slower"


def _meets_onednn_fault(model: nn.Module, device: torch.device) -> bool:
    """Whether gradients of the model's weights would be wrong in channels_last on a CPU.

    oneDNN's backward pass of 1x1 convolutions with a stride writes past its workspace if they have fewer input channels
    than BLOCK: weights get wrong gradients, or the process aborts (uxlfoundation/oneDNN issue 6035).
    """
    return device.type == "cpu" and any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < BLOCK
        for module in model.modules()
    )


def _keep_contiguous(model: nn.Module) -> None:
    """Makes the weights contiguous, and the inputs by a hook."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = _row_by_row(tensor.data)
    if not is_contiguous(model):
        model.register_forward_pre_hook(_contiguous)


def _pass(model: nn.Module, x: Images) -> Tensor:
    """The logits of a forward pass; a backward pass follows where the logits have a gradient."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []), borrowed(model), torch.enable_grad():
        images = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        logits = precise(model(images))
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), images, allow_unused=True)
    return logits.detach()


def _contiguous(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return _row_by_row(arguments[0]), *arguments[1:]


def _row_by_row(tensor: Tensor) -> Tensor:
    """A contiguous tensor with contiguous strides.

    `contiguous` is not enough: it takes [N, 1, H, W] in channels_last for contiguous and leaves its strides.
    """
    return tensor.reshape(-1).view(tensor.shape)
