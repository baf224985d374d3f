"""Checks that a model can be trained correctly, before anything is written."""

import copy
from itertools import combinations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from regmix.evaluation import ask, check_tensors, like_probabilities
from regmix.methods.features import logits_and_features
from regmix.objectives import cross_entropy
from regmix.runtime.borrowed import same_buffers, same_modes
from regmix.runtime.layout import place, settle
from regmix.types import Images, Labels, UserError, few, first_line, require


def ready(
    model: nn.Module, x: Images, y: Labels, classes: int, fabric: Fabric, *, copied: bool, whole: bool,
    features: bool = False,
) -> list[str]:  # fmt: skip
    """Moves a model to its device, in a memory layout in which it works, and tries there what a training step needs.

    Args:
        x, y: a few images in [0, 1] and their labels.
        copied: the training keeps a copy of the model.
        whole: the model fits into the memory of the device; otherwise it is tried on the CPU.
        features: the method needs the model's features.

    Returns notes for the user about what the training will do. Weights, statistics, modes and the random state stay as
    they were.

    Raises:
        UserError: the model cannot be trained correctly.
    """
    device = fabric.device if whole else torch.device("cpu")
    check_state(model)
    try:
        model.to(device)
        x, y = x.to(device, next(model.parameters()).dtype), y.to(device)
    except (RuntimeError, NotImplementedError) as error:
        raise UserError(f"the model cannot be moved to {device}: {first_line(error)}") from None
    with torch.random.fork_rng([device] if device.type == "cuda" else []), same_buffers(model):
        in_eval = kept_in_eval(model)
        with same_modes(model), torch.no_grad():
            logits = ask(model.eval(), x, classes)
            if features:
                logits_and_features(model, x)
        notes = [settle(model, x)]
        if (text := like_probabilities(logits)) is not None:
            notes.append(f"{text}; the loss needs logits: leave out the model's last softmax or sigmoid")
        place(model, device)
        with same_modes(model):
            train_mode(model, in_eval)
            unused = _without_effect(model, x, y, classes, fabric)
        with same_modes(model), torch.no_grad():
            model.eval()(x)  # tensors that the model keeps belong to a graph since the pass above, and have no copy
            if copied and (fault := _copy_fault(model, x)) is not None:
                raise UserError(
                    f"the training keeps a copy of the model, {fault}; use --averaging none without --shard-weights"
                )
    if unused:
        what = "without effect on the logits of two images, and trained only where they have one:"
        notes.append(few(what, unused))
    if in_eval:
        names = [name for name, module in model.named_modules() if any(module is each for each in in_eval)]
        notes.append(few("in evaluation mode from the start, and kept in it:", names))
    return [note for note in notes if note is not None]


def _copy_fault(model: nn.Module, x: Images) -> str | None:
    """What is wrong with a copy of a model, as a clause; None if it computes by itself. The model has just seen x."""
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        return f"which cannot be made ({first_line(error)})"
    found, expected, again = twin(x.flip(0)), model(x.flip(0)), model(x.flip(0))

    def same(answer: Tensor) -> bool:
        close = 1e-2 * float(expected.abs().max())
        return answer.shape == expected.shape and torch.allclose(answer, expected, rtol=1e-2, atol=close)

    if same(found) or not same(again):  # the second: the model is random
        return None
    return "which answers otherwise than the model (do its hooks lead back to the original?)"


def check_state(model: nn.Module) -> None:
    """Raises UserError unless the model's state can be saved, restored and averaged.

    The state must consist of tensors, and a parameter must require a gradient. One tensor may have several names. Two
    tensors must not share memory: moving or copying the model would separate them, and a step would change the shared
    part twice.
    """
    check_tensors(model)
    require(
        any(parameter.requires_grad for parameter in model.parameters()),
        "none of the model's parameters requires a gradient",
    )
    named = [*model.named_parameters(), *model.named_buffers()]
    spans = [(name, *_span(tensor)) for name, tensor in named if tensor.numel()]
    for (name, storage, first, end), (other_name, other_storage, other_first, other_end) in combinations(spans, 2):
        if storage == other_storage and first < other_end and other_first < end:
            raise UserError(
                f"{name} and {other_name} share memory without being one tensor, and would be separated when the model "
                "is moved; give them memory of their own, or tie them as one parameter: b.weight = a.weight"
            )


def _span(tensor: Tensor) -> tuple[int, int, int]:
    """The memory that a tensor lies in, the index of its first element there, and one past that of its last."""
    first = tensor.storage_offset()
    last = first + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.untyped_storage().data_ptr(), int(first), int(last) + 1


def _without_effect(model: nn.Module, x: Images, y: Labels, classes: int, fabric: Fabric) -> list[str]:
    """The names of parameters that require a gradient and get none, in the mode and precision of training."""
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = [*learned.values()]
    try:
        with fabric.autocast():
            cast = torch.is_autocast_enabled(fabric.device.type)
            image_gradient, gradients = _gradients(model, x, y, classes, parameters)
    except UserError as error:
        mode = _mode(model, x, y, classes, parameters) if cast else "in train mode"
        raise UserError(f"{mode}, {error}") from None
    if image_gradient is None:
        raise UserError("no gradient flows from the model's logits to the images, which attacks need; is it detached?")
    unused = [name for name, gradient in zip(learned, gradients, strict=True) if gradient is None]
    require(len(unused) < len(learned), "no gradient flows from the model's logits to any of its parameters")
    return unused


def _gradients(
    model: nn.Module, x: Images, y: Labels, classes: int, parameters: list[nn.Parameter]
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """The gradients of the loss with respect to the images and the parameters, as an attack and a step take them."""
    images = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    logits = ask(model, images, classes)
    try:
        loss = cross_entropy(logits, y).sum()
        # retain_graph, because an attack and the loss may share a forward pass.
        (of_images,) = torch.autograd.grad(loss, images, retain_graph=True, allow_unused=True)
        return of_images, torch.autograd.grad(loss, parameters, allow_unused=True)
    except Exception as error:
        remedy = "compute the logits without no_grad, detach or hard decisions such as argmax"
        raise UserError(f"the gradients cannot be computed ({first_line(error)}); {remedy}") from None


def _mode(model: nn.Module, x: Images, y: Labels, classes: int, parameters: list[nn.Parameter]) -> str:
    """The mode in which a model has failed, as a phrase, and its precision if that is to blame."""
    try:
        _gradients(model, x, y, classes, parameters)
    except UserError:
        return "in train mode"
    return "in train mode under bfloat16 autocast, which --precision 32 leaves out"


def kept_in_eval(model: nn.Module) -> list[nn.Module]:
    """The parts of a model in train mode that are in evaluation mode, such as a frozen BatchNorm: they stay so."""
    return [module for module in model.modules() if not module.training] if model.training else []


def train_mode(model: nn.Module, in_eval: list[nn.Module]) -> None:
    """Puts a model into train mode, except for these parts."""
    model.train()
    for module in in_eval:
        module.training = False
