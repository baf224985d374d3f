"""Runs an attack and reports which rows it could attack at all."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regmix.attacks.base import Attack
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, Objective, UserError


class Attempt(NamedTuple):
    """Perturbations [B, C, H, W], and which rows were attacked, bool [B].

    A row is not attacked if a decision-based attack has no misclassified point to start from, or if a gradient-based
    one finds no gradient. That such a row survives is no evidence of robustness.
    """

    delta: Images
    attacked: Bool[Tensor, "batch"]
    queries: Int[Tensor, "batch"] | None = None
    """The query, counted from 1, that a black-box attack broke the row with; -1 where it did not. None: not counted."""


def attempt(attack: Attack, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
    """Runs an attack and reports which rows it attacked.

    If the attack has a method `attempt`, that method decides. If it has an attribute `climbs`, the objective whose
    gradient it follows, a row counts as attacked if the gradient is finite and not zero at the image or where the
    attack ended. Any other attack counts as attacking every row.
    """
    own = getattr(attack, "attempt", None)
    if own is not None:
        result: Attempt = own(model, x, y, threat)
        return result
    delta, objective = like_images(attack(model, x, y, threat), x, attack), getattr(attack, "climbs", None)
    if objective is None:
        return Attempt(delta, torch.ones(len(x), dtype=torch.bool, device=x.device))
    attacked = has_gradient(model, x, y, objective)
    left = ~attacked
    if left.any():
        attacked[left] = has_gradient(model, (x + delta)[left], y[left], objective)
    return Attempt(delta, attacked)


def like_images(delta: object, x: Images, attack: object) -> Images:
    """The perturbations in the type of the images. Raises UserError if an attack returned anything else."""
    if not isinstance(delta, Tensor) or delta.shape != x.shape:
        what = f"a tensor {[*delta.shape]}" if isinstance(delta, Tensor) else type(delta).__name__
        raise UserError(f"{attack} returned {what}; it must return perturbations {[*x.shape]}, like the images")
    return delta.detach().to(x)


def has_gradient(model: Model, x: Images, y: Labels, objective: Objective) -> Bool[Tensor, "rows"]:
    """Whether the objective's input gradient is finite and not all zero, per row."""
    with borrowed(model), torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(model(images), y).sum(), images)
    flat = gradient.flatten(1)
    usable: Tensor = flat.isfinite().all(1) & (flat != 0).any(1)
    return usable
