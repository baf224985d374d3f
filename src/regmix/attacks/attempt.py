"""What an attack did, with the rows that it could not take on."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.attacks.base import Attack
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


class Attempt(NamedTuple):
    """Perturbations, and which rows were attacked at all.

    A row that was not attacked comes back unperturbed: an attack on decisions had no misclassified point to start
    from, or one that follows gradients found none. That it survives says nothing of its robustness.
    """

    delta: Images
    attacked: Bool[Tensor, "batch"]


def attempt(attack: Attack, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
    """Runs an attack. One that may have to leave rows alone has a method `attempt` of its own, which tells of them;
    any other is taken to attack every row."""
    own = getattr(attack, "attempt", None)
    if own is not None:
        told: Attempt = own(model, x, y, threat)
        return told
    return Attempt(attack(model, x, y, threat), torch.ones(len(x), dtype=torch.bool, device=x.device))
