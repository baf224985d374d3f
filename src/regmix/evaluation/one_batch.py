"""One batch: what a model sees in it, and what an attack makes of it. Training and evaluation attack only through here.

An attack is not trusted: it gets copies of the images and labels, its perturbation must be finite and lie in the threat
set, the adversarial image is clipped to [0, 1], and the model itself, in the mode and with the buffers that it had, is
asked what it sees there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from regmix.attacks import Attack, Attempt, Minimal, attempt, has_gradient, like_images, logits_in
from regmix.evaluation.answers import untouched
from regmix.runtime.borrowed import same_buffers, same_modes
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, PerExample, UserError


class Nearest(NamedTuple):
    """What an attack that looks for the smallest perturbation has found in a batch."""

    length: PerExample
    """Of the smallest perturbation, in float64; inf where none was found."""
    not_attacked: Bool[Tensor, "batch"]
    """Where none was found and the attack has no gradient to follow at the image."""


class Attacked(NamedTuple):
    """What an attack has made of a batch."""

    adversarial: Images
    broken: Bool[Tensor, "batch"]
    """Which adversarial images the model misclassifies."""
    not_attacked: Bool[Tensor, "batch"]
    """Which of the others the attack could not start from."""
    predicted: Labels
    """The classes that the model predicts for the adversarial images."""
    queries: Int[Tensor, "batch"] | None
    """The query that broke the row, where the attack counts them; see `Attempt`."""


def attacked(
    model: Model, attack: Attack, x: Images, y: Labels, threat: Threat, *, screen: Model | None = None
) -> Attacked:
    """Attacks a batch, checks the perturbations, and asks the model about the adversarial images.

    Args:
        screen: what the attack may ask in place of the model; only the model decides what is broken.

    Raises:
        UserError: the attack has left the threat set or returned something else than finite perturbations, or what
            `predict` raises.
    """
    adversarial, result = _perturb(screen or model, attack, x, y, threat)
    predicted = predict(model, adversarial, y)
    broken = predicted != y
    return Attacked(adversarial, broken, ~(broken | result.attacked), predicted, result.queries)


def nearest(
    model: Model, attack: Minimal, x: Images, y: Labels, threat: Threat, *, asked: Model | None = None
) -> Nearest:
    """The length of the smallest perturbation that an attack finds for every row, and where it could not look for one.

    Args:
        asked: what the attack asks in place of the model; the model decides what is misclassified.

    Raises:
        UserError: perturbations that are not finite, or what `predict` raises.
    """
    with _left_as_it_was(asked or model):
        found = attack.shortest(asked or model, x.clone(), y.clone(), threat)
    delta = _finite(like_images(found, x, attack), attack)
    # Clipping to the image's range shortens a perturbation, if anything.
    wrong = predict(model, (x + delta).clamp(0, 1), y) != y
    idle, objective = torch.zeros_like(wrong), getattr(attack, "climbs", None)
    if objective is not None and not wrong.all():
        idle[~wrong] = ~has_gradient(model, x[~wrong], y[~wrong], objective)
    return Nearest(torch.where(wrong, threat.norm(delta.double()), float("inf")), idle)


def perturb(model: Model, attack: Attack, x: Images, y: Labels, threat: Threat) -> Images:
    """The adversarial images of an attack, checked against the threat set and clipped to [0, 1]."""
    return _perturb(model, attack, x, y, threat)[0]


def _perturb(model: Model, attack: Attack, x: Images, y: Labels, threat: Threat) -> tuple[Images, Attempt]:
    """The adversarial images, and what the attack reports."""
    with _left_as_it_was(model):
        result = attempt(attack, model, x.clone(), y.clone(), threat)
    delta = result.delta
    longest = float(threat.norm(_finite(delta, attack)).max())
    if longest > threat.eps * (1 + 1e-5) + 1e-7:
        raise UserError(
            f"{attack} left the threat set: a perturbation is {longest:.6g} long, longer than eps {threat.eps:.6g}; "
            "end it with threat.project(delta, x)"
        )
    return (x + delta).clamp(0, 1), result


@contextmanager
def _left_as_it_was(model: Model) -> Iterator[None]:
    """Undoes what an attack may leave behind in a model: another mode, or other statistics of BatchNorm."""
    if isinstance(model, nn.Module):
        with same_modes(model), same_buffers(model):
            yield
    else:
        yield


def _finite(delta: Images, attack: object) -> Images:
    """The perturbations. Raises UserError if some are not finite."""
    if bad := int((~delta.isfinite()).flatten(1).any(1).sum()):
        raise UserError(
            f"{attack} made {bad} of {len(delta)} perturbations that are not finite, because the model's gradients are "
            "not finite; look for a division by zero, or a square root or logarithm of zero, in the model"
        )
    return delta


@torch.no_grad()
def predict(model: Model, x: Images, y: Labels) -> Labels:
    """The classes that the model predicts for images in [0, 1]; the true labels y are checked against its outputs.

    Raises:
        UserError: images outside [0, 1], labels outside the model's classes, or logits that are not finite.
    """
    if not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; they must lie in [0, 1]")
    logits = logits_in(untouched(model, x), len(x))
    if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
        raise UserError(f"labels reach {int(y.max())} but the model has {logits.shape[1]} classes")
    if not logits.isfinite().all():
        raise UserError("the model's logits are not finite; an accuracy would mean nothing")
    return logits.argmax(1)
