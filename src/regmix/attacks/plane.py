"""The shortest way to a hyperplane inside the image's range, for FAB."""

import torch

from regmix.threats import L1, L2, Threat
from regmix.types import Images, PerExample


def to_plane(x: Images, w: Images, gap: PerExample, threat: Threat) -> Images:
    """The shortest d with w d = gap and x + d in [0, 1], in the threat's norm; the farthest towards it if none is.

    L1: the elements with the largest |w_i| go as far as they can, one after the other. Otherwise every element goes
    min(s u_i, room_i) in the direction that closes the gap, u = 1 for L-inf and |w| for L2. The way that this closes is
    concave and piecewise linear in s, so that Newton's steps from 0 reach the root from below.
    """
    shape = x.shape
    x, w = x.flatten(1), w.flatten(1)
    towards = w.sign().mul_(gap.sign()[:, None])
    room = torch.where(towards > 0, 1 - x, x)
    weight, gap = w.abs(), gap.abs()
    # In units of the gap that it closes: how far element i can go, and how fast it goes.
    reach = weight * room
    if isinstance(threat, L1):
        order = weight.argsort(1, descending=True)
        closes = reach.gather(1, order)
        before = closes.cumsum(1) - closes
        part = (gap[:, None] - before).clamp_min(0).minimum(closes) / weight.gather(1, order).clamp_min(1e-30)
        return torch.zeros_like(w).scatter_(1, order, part).mul_(towards).view(shape)
    speed = weight.square() if isinstance(threat, L2) else weight
    s, closed = torch.zeros_like(gap), torch.zeros_like(weight)
    for _ in range(20):
        slope = torch.where(closed < reach, speed, 0).sum(1)
        step = torch.where(slope > 0, (gap - closed.sum(1)) / slope, 0).clamp_min(0)
        s = s + step
        if (step <= 1e-6 * s).all():
            break
        torch.mul(speed, s[:, None], out=closed)
        torch.minimum(closed, reach, out=closed)
    s = torch.where(slope > 0, s, float("inf"))[:, None]
    way = (weight * s).nan_to_num(0, float("inf")) if isinstance(threat, L2) else s
    return towards.mul_(torch.minimum(way, room)).view(shape)
