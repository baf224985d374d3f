"""A fast copy of a model for attacks, beside the exact model, which decides."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from regmix.attacks import Apgd, Fab, Relaxation, Screened, Shortened, Square
from regmix.evaluation.answers import gradient_fault
from regmix.evaluation.screening.incremental import Incremental
from regmix.objectives import margin, precise
from regmix.runtime import devices
from regmix.runtime.bfloat16 import wrong_convolution
from regmix.runtime.layout import is_contiguous
from regmix.types import Images, Labels, Logits, first_line

SCREENED = (Apgd, Fab, Relaxation, Shortened, Square)
"""Attacks for which a fast copy of the model may screen; the other attacks report their last iterate only."""

AGREE = 0.25
"""How far the copy's margins may lie from the model's, in units of the mean difference between an image's logits."""


class NoCopy(Exception):  # noqa: N818  it is no error
    """A model has no usable copy and must be attacked without one; says why, as a clause, if anything is lost."""


def screened(model: nn.Module, x: Images, y: Labels) -> Screened:
    """The model together with a copy in channels_last whose BatchNorm is folded into its convolutions.

    The copy computes in bfloat16 where the hardware does, and rightly, and in float32 elsewhere. `x`, `y` are a batch
    of the images to attack. The largest difference of margins on them is the slack within which the exact model is
    asked. If folding is not possible, or changes the float32 logits by more than a thousandth of their size, the copy
    keeps its BatchNorm; in float32 there is then no copy.

    Raises:
        NoCopy: the model cannot be copied, or the copy fails, gives other logits, gives no gradient although the model
            does, or would be no faster.
    """
    with torch.no_grad():
        exact = model(x)
    try:
        pair = _screened(model, x, y, exact)
        same_gradient = gradient_fault(pair, x[:2]) is None or gradient_fault(model, x[:2]) is not None
    except NoCopy:
        raise
    except Exception as error:  # a user's module may raise anything
        raise NoCopy(f"{type(error).__name__}: {first_line(error)}") from None
    spread = float((precise(exact).amax(1) - precise(exact).amin(1)).mean())
    if not pair.slack <= AGREE * spread:  # written so that NaN fails
        raise NoCopy(f"it gives other logits: margins differ by {pair.slack:.2g}, logits by {spread:.2g}")
    if not same_gradient:
        raise NoCopy("it gives no gradient")
    return pair


def _screened(model: nn.Module, x: Images, y: Labels, exact: Logits) -> Screened:
    with torch.no_grad():  # otherwise a copy of a scripted module records a graph
        rough, layout = copy.deepcopy(model).eval(), torch.channels_last
    with torch.no_grad():
        folded = _folded(rough)
        if folded is not None and (folded(x) - exact).abs().max() <= 1e-3 * exact.abs().max():
            rough = folded
    for parameter in rough.parameters():
        parameter.requires_grad_(False)
    if is_contiguous(model):
        layout = torch.contiguous_format
    rough = rough.to(memory_format=layout)  # type: ignore[call-overload]
    in_bfloat16 = devices.computes_in_bfloat16(x.device) and (
        x.device.type != "cpu" or wrong_convolution(rough, x) is None
    )
    if in_bfloat16:
        for module in rough.modules():
            # autocast would convert these weights again in every pass
            if type(module) in (nn.Conv2d, nn.Linear) and _is_plain(module):
                module.to(torch.bfloat16)
    elif rough is not folded:
        raise NoCopy
    answer = _answers(rough, x.device.type, layout, in_bfloat16)
    with torch.no_grad():
        # In another order than before, because a copy whose hooks lead back to the model would repeat its last answers.
        slack = float((margin(answer(x.flip(0)), y.flip(0)) - margin(exact, y).flip(0)).abs().max())
    incremental = None
    if (
        isinstance(rough, fx.GraphModule) and x.device.type == "cpu" and layout is torch.channels_last
    ):  # measured on CPUs only
        incremental = partial(_IncrementalCopy, rough, in_bfloat16)
    return Screened(answer, model, slack, incremental, repeats=in_bfloat16)


def _is_plain(module: nn.Module) -> bool:
    """Whether no hook changes the weights that a module computes with."""
    return not module._forward_pre_hooks and not module._forward_hooks


def _folded(model: nn.Module) -> nn.Module | None:
    """The model with every BatchNorm that follows a convolution folded into it; None if it cannot be traced."""
    try:
        return _fold(fx.symbolic_trace(model))
    except Exception:  # tracing may fail in any way; the model is used as it is
        return None


def _fold(traced: fx.GraphModule) -> nn.Module:
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        norm, convolution = modules[str(node.target)], modules[str(before.target)]
        if not (isinstance(norm, nn.BatchNorm2d) and type(convolution) is nn.Conv2d):  # no parametrised one
            continue
        if not (_is_plain(norm) and _is_plain(convolution)):
            continue
        if len(before.users) == 1 and norm.running_mean is not None:
            parent, _, name = str(before.target).rpartition(".")
            setattr(modules[parent], name, fuse_conv_bn_eval(convolution, norm))
            modules[str(before.target)] = getattr(modules[parent], name)
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _answers(
    model: nn.Module, device: str, layout: torch.memory_format, in_bfloat16: bool
) -> Callable[[Images], Logits]:
    def answer(images: Images) -> Logits:
        with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
            return precise(model(images.contiguous(memory_format=layout)))

    return answer


class _IncrementalCopy(Incremental):
    def __init__(self, graph: fx.GraphModule, in_bfloat16: bool) -> None:
        super().__init__(graph)
        self._in_bfloat16 = in_bfloat16

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        with torch.autocast(trial.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            return precise(super().__call__(images, trial.contiguous(memory_format=torch.channels_last), side))
