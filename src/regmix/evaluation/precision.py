"""A fast, rough copy of a model for attacks, beside the exact one that has the last word."""

import copy
from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from regmix.attacks.base import Screened
from regmix.evaluation.incremental import Incremental
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
    for module in rough.modules():
        # autocast would convert these weights anew in every pass
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(torch.bfloat16)
    answer = _in_bfloat16(rough, x.device.type)
    with torch.no_grad():
        slack = float((margin(answer(x), y) - margin(exact, y)).abs().max())
    if isinstance(rough, fx.GraphModule) and x.device.type == "cpu":  # measured on a CPU only
        return Screened(answer, model, slack, lambda: _IncrementalInBfloat16(rough))
    return Screened(answer, model, slack)


def _folded(model: nn.Module) -> nn.Module | None:
    """The model with every BatchNorm that follows a convolution folded into it; None if it cannot be traced."""
    try:
        traced = fx.symbolic_trace(model)
    except Exception:  # whatever a model does that cannot be traced, it is used as it is
        return None
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        norm, convolution = modules[str(node.target)], modules[str(before.target)]
        if not (isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d)):
            continue
        if len(before.users) == 1 and norm.running_mean is not None:
            parent, _, name = str(before.target).rpartition(".")
            setattr(modules[parent], name, fuse_conv_bn_eval(convolution, norm))
            modules[str(before.target)] = getattr(modules[parent], name)
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _in_bfloat16(model: nn.Module, device: str) -> Callable[[Images], Logits]:
    def answer(images: Images) -> Logits:
        with torch.autocast(device, torch.bfloat16):
            return precise(model(images.contiguous(memory_format=torch.channels_last)))

    return answer


class _IncrementalInBfloat16(Incremental):
    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        with torch.autocast(trial.device.type, torch.bfloat16):
            return precise(super().__call__(images, trial.contiguous(memory_format=torch.channels_last), side))
