"""Adversarial images for files: rounded to whole grey levels, still inside the threat set."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from regmix.threats import Linf, Threat
from regmix.types import Images


def to_uint8(x: Images, adversarial: Images, threat: Threat) -> UInt8[Tensor, "batch channels height width"]:
    """The nearest whole grey levels that keep every image within eps of its x, which has whole levels itself.

    L-inf: each level is rounded and then brought inside [x - eps, x + eps]. L2, L1: where rounding has left the ball,
    every element is rounded towards x instead, which only shortens the perturbation.
    """
    levels, wanted = 255 * x, 255 * adversarial
    # A radius such as 8/255 is a whole number of levels, but not exactly so in floating point.
    slack = 1e-4
    if isinstance(threat, Linf):
        low, high = (levels - 255 * threat.eps - slack).ceil(), (levels + 255 * threat.eps + slack).floor()
        rounded = wanted.round().clamp(low, high)
    else:
        rounded = wanted.round()
        inwards = levels.round() + (wanted - levels).trunc()
        outside = threat.norm((rounded - levels) / 255) > threat.eps
        rounded = torch.where(outside.view(-1, 1, 1, 1), inwards, rounded)
    return rounded.clamp(0, 255).to(torch.uint8)
