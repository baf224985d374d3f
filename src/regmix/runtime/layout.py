"""The layout in memory in which a model works: channels_last, which is faster, unless the model fails in it."""

from typing import Any

import torch
from torch import Tensor, nn

from regmix.objectives import precise
from regmix.runtime.borrowed import borrowed
from regmix.types import Images


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on the device, its weights in the layout that `settle` has found, or channels_last."""
    if is_contiguous(model):
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def is_contiguous(model: nn.Module) -> bool:
    """Whether a model is to be kept out of channels_last."""
    if isinstance(model, torch.jit.ScriptModule):
        return True
    return any(hook is _contiguous for hook in model._forward_pre_hooks.values())


def settle(model: nn.Module, x: Images) -> str | None:
    """Brings a model into channels_last, or where it fails or differs in it makes it get contiguous images from now on.

    Args:
        x: a few images, which the model takes if they are contiguous, on its device.

    Returns a line for the user where the model stays contiguous. A copy of the model knows, too. The model's mode,
    gradients, statistics and the random state stay as they were.
    """
    if isinstance(model, torch.jit.ScriptModule):  # takes no hook, through which it would get contiguous images
        return None
    try:
        expected = _pass(model, _row_by_row(x))
    except Exception:  # in any layout: whoever asks the model will say so
        return None
    try:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = _pass(model, x.contiguous(memory_format=torch.channels_last))
        if float((found - expected).abs().max()) <= 0.05 * float(expected.abs().max()):
            return None
        reason = "gives other logits in"
    except Exception:
        reason = "fails in"
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = _row_by_row(tensor.data)
    model.register_forward_pre_hook(_contiguous)
    return f"the model {reason} channels_last (.view for .reshape?) and runs contiguous, which is slower"


def _pass(model: nn.Module, x: Images) -> Tensor:
    """The logits after a forward pass, and a backward one where a gradient flows."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []), borrowed(model), torch.enable_grad():
        images = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        logits = precise(model(images))
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), images, allow_unused=True)
    return logits.detach()


def _contiguous(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return _row_by_row(arguments[0]), *arguments[1:]


def _row_by_row(tensor: Tensor) -> Tensor:
    """Contiguous, with the strides of it: those of [N, 1, H, W] in channels_last count as such, but ask for more."""
    return tensor.reshape(-1).view(tensor.shape)
