"""A fast, rough copy of a model for attacks, beside the exact one that has the last word."""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from regmix.attacks.base import Screened
from regmix.objectives import margin, precise
from regmix.types import Images, Labels, Logits


def screened(model: nn.Module, x: Images, y: Labels) -> Screened:
    """The model in bfloat16 and channels_last with BatchNorm folded into its convolutions, and the model itself.

    `x`, `y` are a batch of the images to attack: the largest difference of margins on them is the slack within which
    the exact model is asked. Where folding is not possible, or changes the float32 logits by more than a thousandth of
    their size, the copy keeps its BatchNorm.
    """
    rough = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        exact = model(x)
        folded = _folded(rough)
        if folded is not None and (folded(x) - exact).abs().max() <= 1e-3 * exact.abs().max():
            rough = folded
    rough = rough.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    answer = _in_bfloat16(rough, x.device.type)
    with torch.no_grad():
        slack = float((margin(answer(x), y) - margin(exact, y)).abs().max())
    return Screened(answer, model, slack)


def _folded(model: nn.Module) -> nn.Module | None:
    try:
        folded: nn.Module = fuse(model)
    except Exception:  # whatever a model does that cannot be traced, it is used as it is
        return None
    return folded


def _in_bfloat16(model: nn.Module, device: str) -> Callable[[Images], Logits]:
    def answer(images: Images) -> Logits:
        with torch.autocast(device, torch.bfloat16):
            return precise(model(images.contiguous(memory_format=torch.channels_last)))

    return answer
