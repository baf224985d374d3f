"""Starting points and proposals of Square: squares of +-eps under L-inf, pointed shapes under L2 and L1."""

import torch
from torch import Tensor

from regmix.draws import PerImage
from regmix.threats import L1, Threat
from regmix.types import Images


def _signs(numbers: Tensor, like: Tensor) -> Tensor:
    """Signs -1 or +1 from uniform numbers in [0, 1)."""
    return (numbers < 0.5).to(like.dtype) * 2 - 1


def _places(like: Images, side: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """A window of side x side pixels per image, from uniform numbers [B, 2]: rows [B, side, 1] and columns."""
    h, w = like.shape[2:]
    top, left = (numbers[:, 0] * (h - side + 1)).long(), (numbers[:, 1] * (w - side + 1)).long()
    reach = torch.arange(side, device=like.device)
    return (top[:, None] + reach)[:, :, None], (left[:, None] + reach)[:, None, :]


def stripes(x: Images, threat: Threat, draws: PerImage) -> Images:
    """Vertical stripes of +-eps, with a random sign per column and channel."""
    b, c, h, w = x.shape
    return (threat.eps * _signs(draws.numbers(c * w), x).view(b, c, 1, w)).expand(b, c, h, w)


def propose_linf(x: Images, images: Images, threat: Threat, side: int, draws: PerImage) -> Images:
    """The images with one random square set to x +- eps, with a random sign per channel."""
    b, c, h, w = x.shape
    side = max(1, min(side, h, w))
    numbers = draws.numbers(2 + c)
    lines, columns = _places(x, side, numbers[:, :2])
    trial = images.clone()
    each = torch.arange(b, device=x.device)[:, None, None]
    # Indexing with tensors around a slice puts the channels last.
    square = x[each, :, lines, columns] + threat.eps * _signs(numbers[:, 2:], x).view(b, 1, 1, c)
    trial[each, :, lines, columns] = square.clamp_(0, 1)
    return trial


def _pointed(side: int, like: Images, power: int) -> Tensor:
    """A positive and a negative peak side by side, [side, side], of length 1 in L1 (power 1) or L2 (power 2)."""

    def peak(height: int, width: int) -> Tensor:
        shape = torch.zeros(height, width)
        line, column = height // 2, width // 2
        for ring in range(max(height // 2 + 1, width // 2 + 1)):
            reach = 2 * ring + 1
            window = shape[max(line, 0) : line + reach, max(column, 0) : column + reach]
            window += 1 / (ring + 1) ** (4 if power == 1 else 2)
            line, column = line - 1, column - 1
        shape /= shape.norm(p=power)
        return shape

    half = side // 2
    shape = torch.cat([peak(half, side), -peak(side - half, side)])
    shape /= shape.norm(p=power)
    return shape.to(like)


def _shapes(x: Images, side: int, power: int, draws: PerImage) -> Tensor:
    """A pointed shape per image and channel, of random sign and orientation: [B, C, side, side]."""
    b, c = x.shape[:2]
    shape = _pointed(side, x, power)
    numbers = draws.numbers(1 + c)
    standing = numbers[:, 0].view(b, 1, 1, 1) < 0.5
    return torch.where(standing, shape.T, shape) * _signs(numbers[:, 1:], x).view(b, c, 1, 1)


def _power(threat: Threat) -> int:
    return 1 if isinstance(threat, L1) else 2


def _filling(delta: Images, threat: Threat) -> Images:
    """Scales delta to length eps under L2. Under L1 the projection that follows does that."""
    return delta if isinstance(threat, L1) else threat.eps * threat.direction(delta)


def grid(x: Images, threat: Threat, draws: PerImage) -> Images:
    """A start of 5 x 5 pointed shapes."""
    h, w = x.shape[2:]
    side = max(h // 5, 2)
    delta = torch.zeros_like(x)
    for top in range((h - h // side * side) // 2, h - side + 1, side):
        for left in range((w - w // side * side) // 2, w - side + 1, side):
            delta[:, :, top : top + side, left : left + side] = _shapes(x, side, _power(threat), draws)
    return _filling(delta, threat)


def propose_pointed(x: Images, images: Images, threat: Threat, side: int, draws: PerImage) -> Images:
    """The images after moving perturbation from two random squares into a pointed shape in the first of them.

    The shape gets the mass of both squares and what is left of the budget; the second square becomes 0. The mass is the
    sum of |delta_i| under L1 and of delta_i^2 under L2.
    """
    b, c, h, w = x.shape
    delta, power = images - x, _power(threat)
    side = min(max(side, 3) | 1, h, w)
    each = torch.arange(b, device=x.device)[:, None, None]
    first, second = ((each, slice(None), *_places(x, side, draws.numbers(2))) for _ in range(2))
    covered = torch.zeros_like(delta, dtype=torch.bool)
    covered[first] = covered[second] = True
    free = (threat.eps**power - threat.norm(delta) ** power).clamp_min(0)
    mass = free.view(-1, 1) / c + (delta * covered).abs().pow(power).sum((2, 3))
    length = mass.sqrt() if power == 2 else c * mass
    old = delta[first].movedim(3, 1)
    shape = old / old.flatten(2).norm(p=power, dim=2).clamp_min(1e-12)[:, :, None, None]
    shape = shape + _shapes(x, side, power, draws)
    shape = shape * (length / shape.flatten(2).norm(p=power, dim=2).clamp_min(1e-12))[:, :, None, None]
    trial = delta.clone()
    trial[second] = 0
    trial[first] = shape.movedim(1, 3)
    return x + threat.project(_filling(trial, threat), x)
