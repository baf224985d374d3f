"""Checks of a model: finite logits for every image, unchanged images, and a gradient with respect to them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from regmix.attacks import IN_PLACE, Attack, Ensemble, Given, HopSkipJump, Square, Transfer, logits_in
from regmix.objectives import precise
from regmix.runtime.borrowed import borrowed
from regmix.types import Images, Model, UserError, few, first_line, require

BLIND = (Square, HopSkipJump, Transfer, Given)
"""Attacks that need no gradient of the model."""
ENOUGH = 50
"""Outputs from which it counts that they all lie in [0, 1]."""


def ask(model: Model, x: Images, classes: int | None = None) -> Tensor:
    """The logits of images, checked. The caller chooses the model's mode and whether gradients are recorded.

    Args:
        classes: the number of logits that there must be per image; None means any number.

    Raises:
        UserError: the model fails, changes its input, or returns no [B, classes] of finite numbers.
    """
    try:
        output = untouched(model, x)
    except UserError:
        raise
    except Exception as error:
        require("leaf Variable" not in str(error), IN_PLACE)
        raise UserError(
            f"the model fails on {x.dtype} images {list(x.shape)} on {x.device}: {first_line(error)}"
        ) from None
    logits = logits_in(output, len(x))
    if not logits.isfinite().all():
        raise UserError("the model's logits are not finite; an accuracy would mean nothing")
    if classes is not None and logits.shape[1] != classes:
        raise UserError(
            f"the model returns {logits.shape[1]} logits for {classes} classes; it must return one for each class of "
            "the data, in their order: give it an output of that size, or select the logits of these classes"
        )
    return logits


def untouched(model: Model, x: Images) -> object:
    """What the model returns for images. Raises UserError if it changes them, and restores them."""
    kept = x.detach().clone(memory_format=torch.preserve_format)
    output: object = model(x)
    if not torch.equal(kept, x.detach()):
        with torch.no_grad():
            x.copy_(kept)
        raise UserError(IN_PLACE)
    return output


def check_tensors(model: nn.Module) -> None:
    """Raises UserError unless the model's state consists of tensors, because only tensors are saved."""
    other = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if other:
        raise UserError(
            f"the model's state holds values that are not tensors ({few('', other)}) and cannot be saved "
            "as weights: make them buffers, or leave them out of the state dict"
        )


def like_probabilities(logits: Tensor) -> str | None:
    """Says, as a clause, that outputs [B, classes] look like probabilities and not like logits; None: they do not."""
    logits = logits.detach().double()
    low, high = float(logits.min()), float(logits.max())
    if low < 0:
        return None
    for whole in (1, 100):
        if bool(((logits.sum(1) - whole).abs() < 1e-3 * whole).all()):
            return f"the outputs for every image add up to {whole}, as probabilities do"
    # Logits of a network that has learned nothing are small, or nearly the same for all images.
    spread = float((logits.amax(0) - logits.amin(0)).max())
    if 0.9 < high <= 1 and spread > 0.5 and logits.numel() >= ENOUGH:
        return "the outputs all lie in [0, 1], as probabilities do"
    return None


def gradient_fault(model: Model, x: Images) -> str | None:
    """Why attacks that follow a gradient cannot run, as a clause; None if they can. A few images are enough."""
    with borrowed(model), torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        try:
            logits = model(images)
        except Exception as error:
            return f"the model fails on images that need a gradient ({first_line(error)})"
        if logits.requires_grad:
            try:
                (gradient,) = torch.autograd.grad(precise(logits).sum(), images, allow_unused=True)
            except Exception as error:
                return f"the gradient of the model's logits cannot be computed ({first_line(error)})"
            if gradient is not None:
                return None
    return "no gradient flows from the model's logits to the images (no_grad, detach, or a decision inside it?)"


def require_gradient(model: Model, x: Images, attacks: Mapping[str, Attack]) -> None:
    """Raises UserError if attacks need a gradient and the model gives none; the message names the attacks."""
    names = [name for name, attack in attacks.items() if needs_gradient(attack)]
    if names and (fault := gradient_fault(model, x[:2])) is not None:
        raise UserError(
            f"{fault}, so {', '.join(names)} cannot attack the model; use square, hop-skip-jump or transfer:RUN instead"
        )


@contextmanager
def explaining_gradients(model: Model, x: Images, attacks: Mapping[str, Attack]) -> Iterator[None]:
    """Where attacks fail because the model gives no gradient, raises the UserError of `require_gradient` instead."""
    try:
        yield
    except (RuntimeError, TypeError):
        require_gradient(model, x, attacks)  # only after a failure, because it takes a pass through the model
        raise


def needs_gradient(attack: Attack) -> bool:
    """Whether an attack follows the model's gradient."""
    if isinstance(attack, Ensemble):
        return any(needs_gradient(stage) for _, stage in attack.stages)
    return not isinstance(attack, BLIND)
