"""Attacks that look for the smallest perturbation: their protocol, and what they share."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.threats import L1, L2, Threat
from regmix.types import Images, Labels, Model, PerExample


@runtime_checkable
class Minimal(Protocol):
    """An attack that minimises the length of the perturbation, so that one run answers for every radius.

    As an attack at a radius it returns the smallest perturbations that are no longer than eps, and 0 for other rows.
    """

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images: ...
    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        """The smallest perturbation found for every row, in the threat's norm and whatever its eps; 0: none found."""
        ...


def within(delta: Images, x: Images, threat: Threat) -> Images:
    """The perturbations that are no longer than eps, and 0 for the other rows."""
    return threat.project(delta * (threat.norm(delta) <= threat.eps).view(-1, 1, 1, 1), x)


class Shortest:
    """The smallest perturbation that misclassifies each row so far: `delta`, and its `length`, inf where none is."""

    def __init__(self, x: Images, threat: Threat) -> None:
        self.delta, self._threat = torch.zeros_like(x), threat
        self.length = x.new_full((len(x),), float("inf"))

    def offer(self, delta: Images, wrong: Bool[Tensor, "batch"]) -> None:
        """Keeps the perturbations that are wrong and shorter."""
        length = self._threat.norm(delta)
        shorter = wrong & (length < self.length)
        self.length = torch.where(shorter, length, self.length)
        self.delta = torch.where(shorter.view(-1, 1, 1, 1), delta, self.delta)


def to_ball(delta: Images, radius: PerExample, threat: Threat) -> Images:
    """The nearest perturbation of at most `radius` [B] in the threat's norm; the image's range is not regarded."""
    wide = radius.view(-1, 1, 1, 1)
    if isinstance(threat, L1):
        return _to_l1_ball(delta, radius)
    if isinstance(threat, L2):
        return delta * (wide / threat.norm(delta).view(-1, 1, 1, 1).clamp_min(1e-12)).clamp_max(1)
    return delta.clamp(-wide, wide)


def _to_l1_ball(delta: Images, radius: PerExample) -> Images:
    """sign(delta_i) max(|delta_i| - t, 0) with the smallest t >= 0 whose sum is at most the radius."""
    size = delta.flatten(1).abs()
    ordered = size.sort(1, descending=True).values
    places = torch.arange(1, size.shape[1] + 1, device=size.device)
    thresholds = (ordered.cumsum(1) - radius[:, None]) / places
    last = (ordered > thresholds).sum(1, keepdim=True).clamp_min(1) - 1
    t = thresholds.gather(1, last).clamp_min(0).view(-1, 1, 1, 1)
    return delta.sign() * (delta.abs() - t).clamp_min(0)
