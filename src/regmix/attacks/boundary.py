"""What an attack on decisions does at the boundary: find it, come back to it, and estimate its direction."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from regmix.threats import L2, Threat
from regmix.types import Images

Decide = Callable[[Images], Tensor]
"""Images to bool: are they misclassified?"""
FINEST = 1e-6
"""Smallest step of a bisection; much closer points are equal in float32."""
NOISE, FEW, BEST = 100, 6, 3
"""Random images that are tried as starts at most, and where there are others; starts of each kind that are compared."""


def first_point(wrong: Decide, x: Tensor, others: Images, threat: Threat, generator: Generator) -> Tensor | None:
    """A misclassified point; None where no start is misclassified.

    Starts are the nearest of the others, misclassified images, and uniform noise. The line from each to x is bisected,
    coarsely, and the point that is nearest then is taken.
    """
    nearest = threat.norm(others - x).topk(min(BEST, len(others)), largest=False).indices
    noise = torch.rand((NOISE, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
    hits = noise[:FEW][wrong(noise[:FEW])]
    if not len(hits) and not len(others):
        hits = noise[FEW:][wrong(noise[FEW:])]
    starts = torch.cat([others[nearest], hits[:BEST]])
    if not len(starts):
        return None
    low, high = torch.zeros_like(starts[:, :1, :1, :1]), torch.ones_like(starts[:, :1, :1, :1])
    for _ in range(7):
        middle = (low + high) / 2
        hit = wrong(x + middle * (starts - x)).view(-1, 1, 1, 1)
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    points = x + high * (starts - x)
    return points[int(threat.norm(points - x).argmin())]


def normal_at(wrong: Decide, at: Tensor, radius: float, count: int, euclid: bool, generator: Generator) -> Tensor:
    """The boundary's normal at a point, towards the misclassified side, from decisions at noisy points around it."""
    shape = (count, *at.shape)
    if euclid:
        around = torch.randn(shape, generator=generator, dtype=at.dtype, device=at.device)
    else:
        around = 2 * torch.rand(shape, generator=generator, dtype=at.dtype, device=at.device) - 1
    around = around / around.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    points = (at + radius * around).clamp(0, 1)
    sign = wrong(points).to(at.dtype) * 2 - 1
    mean = sign.mean()
    centred = sign if mean.abs() == 1 else sign - mean
    normal: Tensor = (centred.view(-1, 1, 1, 1) * (points - at) / radius).mean(0)
    return normal


def bisect(wrong: Decide, x: Tensor, at: Tensor, threat: Threat, theta: float) -> Tensor:
    """The misclassified point nearest to x on the way from `at`: a line for L2, a shrinking box for L-inf."""
    euclid = isinstance(threat, L2)
    low, high = 0.0, 1.0 if euclid else float(threat.norm((at - x)[None]))
    end = theta if euclid else min(high * theta, theta)

    def point(share: float) -> Tensor:
        return x + share * (at - x) if euclid else x + (at - x).clamp(-share, share)

    while high - low > max(end, FINEST):
        middle = (low + high) / 2
        if wrong(point(middle)[None])[0]:
            high = middle
        else:
            low = middle
    return point(high)
