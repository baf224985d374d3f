"""MALT: APGD on the wrong classes that look nearest on the linearised model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.apgd import Apgd
from regmix.attacks.base import likeliest_wrong
from regmix.threats import L1, L2, Threat
from regmix.types import Images, Labels, Logits, Model, PerExample


@dataclass(frozen=True)
class Malt(Apgd):
    """Targeted APGD whose targets are ordered by their distance on the model linearised at the image.

        distance of class t = (z_y - z_t) / ||grad_x (z_t - z_y)||_*,   the dual norm: L1 for L-inf, L2 for L2

    Under L1 the dual norm is L-inf. APGD orders targets by their logits alone.

    Source: MALT's public description (mesoscopic almost linearity targeting): the order, 100 candidates, 9 targets.
    Deviation: the norm for L1, which it does not have.
    """

    targets: int = 9
    candidates: int = 100
    """How many wrong classes to order, the likeliest ones; each costs a backward pass."""

    @property
    def passes(self) -> int:
        return super().passes + 2 * self.targets  # with as many candidates as targets, as for 10 classes

    def wrong(self, model: Model, x: Images, y: Labels, logits: Logits, threat: Threat) -> Tensor:
        candidates = likeliest_wrong(logits, y, self.candidates)
        distance = linear_distances(model, x, y, candidates, threat)
        nearest = distance.argsort(dim=1, stable=True)[:, : self.targets]
        return candidates.gather(1, nearest)


def linear_distances(model: Model, x: Images, y: Labels, wrong: Tensor, threat: Threat) -> Tensor:
    """How far away each wrong class is on the model linearised at x, [B, T] in the threat's norm; inf: no gradient.

    wrong: class indices [B, T].
    """
    return torch.stack([distance for _, _, distance in linearised(model, x, y, wrong, threat)], 1)


def linearised(
    model: Model, x: Images, y: Labels, wrong: Tensor, threat: Threat
) -> Iterator[tuple[PerExample, Images, PerExample]]:
    """For every column t of `wrong`: the lead z_y - z_t at x, grad_x (z_t - z_y), and their distance."""
    images = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
        leads = (logits.gather(1, y[:, None]) - logits.gather(1, wrong)).unbind(1)
        sums = [-lead.sum() for lead in leads]
    for lead, value in zip(leads, sums, strict=True):
        (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
        slope = torch.linalg.vector_norm(gradient.flatten(1), dual_power(threat), dim=1)
        lead = lead.detach().to(x.dtype)
        yield lead, gradient, torch.where(slope > 0, lead / slope, float("inf"))


def dual_power(threat: Threat) -> float:
    """The p of the norm that is dual to the threat's: the loss of a linear model rises by eps ||grad||_p."""
    return math.inf if isinstance(threat, L1) else 2.0 if isinstance(threat, L2) else 1.0
