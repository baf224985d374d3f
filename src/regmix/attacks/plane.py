"""Projection onto a hyperplane inside the image's range, for FAB."""

import torch

from regmix.attacks.rows import waits_for_nothing
from regmix.threats import L1, L2, Threat
from regmix.types import Images, PerExample

ASK_EVERY = 4
"""Turns of Newton's method between two questions whether it is done, where a question waits for the device."""


def to_plane(x: Images, w: Images, gap: PerExample, threat: Threat) -> Images:
    """The shortest d, in the threat's norm, with w d = gap and x + d in [0, 1].

    If there is none, d goes as far towards the hyperplane as [0, 1] allows. With room_i the distance of x_i to the end
    of its range in the direction that closes the gap:

        L1:     |d_i| = room_i for the elements with the largest |w_i|, until the gap is closed
        others: |d_i| = min(s u_i, room_i),   u = 1 for L-inf and |w| for L2

    w d is concave and piecewise linear in s, so Newton's method from s = 0 converges to the root from below.

    Args:
        x: images [B, C, H, W] in [0, 1].
        w: normal vectors of the hyperplanes, of the same shape.
        gap: [B].
    """
    # Flattening would copy images in channels_last. Comparisons write numbers, because boolean masks are several times
    # slower on a CPU.
    sums = (1, 2, 3)
    towards = w.sign().mul_(gap.sign().view(-1, 1, 1, 1))
    room = torch.gt(towards, 0, out=torch.empty_like(towards)).sub_(x).abs_()
    weight, gap = w.abs(), gap.abs()
    if isinstance(threat, L1):
        return towards.mul_(_one_after_the_other(weight, room, gap))
    u = weight if isinstance(threat, L2) else weight.new_ones(())
    speed, s = weight * u, torch.zeros_like(gap)
    way, free = torch.zeros_like(weight), torch.empty_like(weight)
    every = 1 if waits_for_nothing(x) else ASK_EVERY
    for turn in range(20):
        torch.gt(room, s.view(-1, 1, 1, 1) * u, out=free)
        slope = (speed * free).sum(sums)
        step = torch.where(slope > 0, (gap - (weight * way).sum(sums)) / slope, 0).clamp_min(0)
        s = s + step
        if turn % every == every - 1 and (step <= 1e-6 * s).all():
            break
        torch.minimum(s.view(-1, 1, 1, 1) * u, room, out=way)
    s = torch.where(slope > 0, s, float("inf")).view(-1, 1, 1, 1)
    way = (weight * s).nan_to_num(0, float("inf")) if isinstance(threat, L2) else s
    return towards.mul_(torch.minimum(way, room))


def _one_after_the_other(weight: Images, room: Images, gap: PerExample) -> Images:
    """The L1 case: |d_i|, with elements of large weight moved first, each as far as it can go."""
    shape, weight, room = weight.shape, weight.flatten(1), room.flatten(1)
    order = weight.argsort(1, descending=True)
    closes = (weight * room).gather(1, order)
    before = closes.cumsum(1) - closes
    part = (gap[:, None] - before).clamp_min(0).minimum(closes) / weight.gather(1, order).clamp_min(1e-30)
    return torch.zeros_like(weight).scatter_(1, order, part).view(shape)
