"""What a model must be for its training to be right, found out before anything is written."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from regmix.evaluation import ask, check_tensors, why
from regmix.objectives import cross_entropy
from regmix.runtime.layout import place, settle
from regmix.training.awp import same_buffers
from regmix.types import Images, Labels, UserError, require


def ready(
    model: nn.Module, x: Images, y: Labels, classes: int, fabric: Fabric, *, copied: bool, whole: bool
) -> list[str]:
    """Moves a model to its device, in the layout in which it works, and tries there what a training step needs.

    Args:
        x, y: a few images in [0, 1] and their labels.
        copied: the training keeps a copy of the model.
        whole: the model fits into the memory of the device; otherwise it is tried on the CPU.

    Returns lines for the user, with what the training will do. Weights, statistics, modes and the random state stay.

    Raises:
        UserError: the model cannot be trained rightly.
    """
    device = fabric.device if whole else torch.device("cpu")
    check_state(model)
    if copied:
        try:
            copy.deepcopy(model)
        except Exception as error:
            raise UserError(
                f"the training keeps a copy of the model, which cannot be made ({why(error)}); use --averaging none "
                "without --shard-weights"
            ) from None
    try:
        model.to(device)
        x, y = x.to(device, next(model.parameters()).dtype), y.to(device)
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(f"the model cannot be moved to {device}: {why(error)}") from None
    with torch.random.fork_rng([device] if device.type == "cuda" else []), same_buffers(model):
        resting = at_rest(model)
        with _modes_kept(model), torch.no_grad():
            ask(model.eval(), x, classes)
        found = [settle(model, x)]
        place(model, device)
        with _modes_kept(model):
            train_mode(model, resting)
            unused = _without_effect(model, x, y, classes, fabric)
    if unused:
        found.append(f"without effect on the logits of two images, and not trained where that is so: {_few(unused)}")
    if resting:
        named = {id(module): name for name, module in model.named_modules()}
        found.append(f"in evaluation mode from the start, and kept in it: {_few([named[id(one)] for one in resting])}")
    return [line for line in found if line is not None]


def check_state(model: nn.Module) -> None:
    """Raises UserError unless the model's state can be saved, put back and averaged.

    It must consist of tensors, and parameters of float32 that learn must be among them. One tensor may have several
    names; what may not be is that two share memory, because moving or copying the model would part them, and a step
    would move what they share twice.
    """
    check_tensors(model)
    require(any(one.requires_grad for one in model.parameters()), "none of the model's parameters requires a gradient")
    named = [*model.named_parameters(), *model.named_buffers()]
    spans = [(name, *_span(tensor)) for name, tensor in named if tensor.numel()]
    for (one, storage, low, high), (other_one, same, first, last) in combinations(spans, 2):
        if storage == same and low < last and first < high:
            raise UserError(
                f"{one} and {other_one} share memory without being one tensor, and would part when the model is moved; "
                "give them memory of their own, or tie them as one parameter: b.weight = a.weight"
            )


def _span(tensor: Tensor) -> tuple[int, int, int]:
    """The memory that a tensor lies in, and its first and last element there."""
    low = tensor.storage_offset()
    last = low + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.untyped_storage().data_ptr(), int(low), int(last) + 1


def _without_effect(model: nn.Module, x: Images, y: Labels, classes: int, fabric: Fabric) -> list[str]:
    """The names of parameters that require a gradient and get none, in the mode and precision of training."""
    learned = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    images = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with fabric.autocast():
        try:
            logits = ask(model, images * 1, classes)
        except UserError as error:
            raise UserError(f"{_way(fabric)}, {error}") from None
        try:
            value = cross_entropy(logits, y).sum()
            # The attack and the loss may share a forward pass.
            (to_images,) = torch.autograd.grad(value, images, retain_graph=True, allow_unused=True)
            gradients = torch.autograd.grad(value, [one for _, one in learned], allow_unused=True)
        except Exception as error:
            remedy = "return logits that are computed without no_grad, detach and decisions"
            raise UserError(f"{_way(fabric)}, the gradients cannot be computed ({why(error)}); {remedy}") from None
    if to_images is None:
        raise UserError("no gradient flows from the model's logits to the images, which attacks need; is it detached?")
    unused = [name for (name, _), gradient in zip(learned, gradients, strict=True) if gradient is None]
    require(len(unused) < len(learned), "no gradient flows from the model's logits to any of its parameters")
    return unused


def _way(fabric: Fabric) -> str:
    with fabric.autocast():
        cast = torch.is_autocast_enabled(fabric.device.type)
    return "in train mode under bfloat16 autocast, which --precision 32 leaves out" if cast else "in train mode"


def at_rest(model: nn.Module) -> list[nn.Module]:
    """The parts of a model in train mode that are in evaluation mode, such as a frozen BatchNorm."""
    return [module for module in model.modules() if not module.training] if model.training else []


def train_mode(model: nn.Module, resting: list[nn.Module]) -> None:
    """Train mode for the model except for the parts that rest."""
    model.train()
    for module in resting:
        module.training = False


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    yield
    for module, mode in modes:
        module.training = mode


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
