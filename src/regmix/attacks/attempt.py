"""What an attack did, with the rows that it could not take on."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.attacks.base import Attack
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, Objective


class Attempt(NamedTuple):
    """Perturbations, and which rows were attacked at all.

    Where a row was not attacked, an attack on decisions had no misclassified point to start from, or one that follows
    gradients found none. That such a row survives says nothing of its robustness.
    """

    delta: Images
    attacked: Bool[Tensor, "batch"]


def attempt(attack: Attack, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
    """Runs an attack, and says which rows it attacked.

    An attack that may have to leave rows alone has a method `attempt` of its own, which tells of them. One that follows
    the gradient of an objective names it in an attribute `climbs`: rows that have none, neither at the image nor where
    the attack ended, were not attacked. Any other is taken to attack every row.
    """
    own = getattr(attack, "attempt", None)
    if own is not None:
        told: Attempt = own(model, x, y, threat)
        return told
    delta, objective = attack(model, x, y, threat), getattr(attack, "climbs", None)
    attacked = torch.ones(len(x), dtype=torch.bool, device=x.device)
    if objective is not None:
        for images in (x, x + delta):
            left = ~attacked if images is not x else attacked.clone()
            if left.any():
                attacked[left] = _has_gradient(model, images[left], y[left], objective)
    return Attempt(delta, attacked)


def _has_gradient(model: Model, x: Images, y: Labels, objective: Objective) -> Bool[Tensor, "rows"]:
    """Where the objective's gradient is finite and not all zero."""
    with borrowed(model), torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(model(images), y).sum(), images)
    flat = gradient.flatten(1)
    found: Tensor = flat.isfinite().all(1) & (flat != 0).any(1)
    return found
