"""Random numbers: those of torch's generators, and those that belong to an image."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from regmix.types import Images

GAMMA, FIRST, SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""Constants of SplitMix64, as signed integers."""
BITS = 24
"""Of a uniform number: float32 holds them, so that float32 and float64 draw the same numbers."""


class PerImage:
    """Random numbers that depend on an image's pixels, the seed and how many were drawn, and on nothing else.

    An attack that draws from it finds the same whatever other images are in the batch, in whatever order, and on
    whatever device. The numbers of an image are those of the generator SplitMix64 (Steele, Lea, Flood, OOPSLA 2014),
    begun at a hash of its pixels, rounded to 1/255.

    Args:
        x: images [B, C, H, W] in [0, 1].
        seed: seed of the attack, or one for each image.
        also: integers [B] that tell uses of one image apart, such as the class that an attack aims at.
    """

    def __init__(self, x: Images, seed: int | Int[Tensor, "batch"], also: Int[Tensor, "batch"] | None = None) -> None:
        pixels = (x.flatten(1) * 255).round().long()
        places = _mixed(torch.arange(pixels.shape[1], device=x.device) * GAMMA)
        seeds = seed if isinstance(seed, Tensor) else torch.tensor(_wrapped(seed), device=x.device)
        keys = _mixed(_mixed(pixels + places).sum(1) + _mixed(seeds))
        self.keys = keys if also is None else _mixed(keys + (also + 1) * GAMMA)
        """One integer of 64 bits per image. Take rows away to go on with the other images."""
        self._drawn = 0

    def numbers(self, count: int) -> Float[Tensor, "batch count"]:
        """The next numbers of each image: multiples of 2^-24, uniform in [0, 1)."""
        turns = torch.arange(self._drawn + 1, self._drawn + count + 1, device=self.keys.device)
        self._drawn += count
        bits = _shifted(_mixed(self.keys[:, None] + turns * GAMMA), 64 - BITS)
        numbers: Tensor = bits.float() / 2**BITS
        return numbers


def restarted(seed: int, restart: int) -> int:
    """The seed of an attack's further start, which no other seed has; a first start (0) has the attack's own."""
    return _wrapped(seed + restart * GAMMA)


Source = Generator | PerImage | None
"""Where random numbers come from; None: torch's default generator of the device."""


def uniform(like: Tensor, source: Source, low: float = 0, high: float = 1) -> Tensor:
    """Uniform numbers in [low, high), of the shape [B, ...], dtype and memory layout of another tensor."""
    if isinstance(source, PerImage):
        return torch.empty_like(like).copy_(_numbers(like, source) * (high - low) + low)
    return torch.empty_like(like).uniform_(low, high, generator=source)


def normal(like: Tensor, source: Source) -> Tensor:
    """Numbers of the standard normal distribution, of the shape [B, ...], dtype and layout of another tensor."""
    if isinstance(source, PerImage):
        radius = (-2 * _positive(like, source).log()).sqrt()
        return torch.empty_like(like).copy_(radius * (2 * math.pi * _numbers(like, source)).cos())
    return torch.empty_like(like).normal_(generator=source)


def exponential(like: Tensor, source: Source) -> Tensor:
    """Numbers of the exponential distribution of mean 1, of the shape [B, ...], dtype and layout of another tensor."""
    if isinstance(source, PerImage):
        return torch.empty_like(like).copy_(-_positive(like, source).log())
    return torch.empty_like(like).exponential_(generator=source)


def _numbers(like: Tensor, source: PerImage) -> Tensor:
    """Uniform numbers in float32 or float64: narrower types round the largest to 1."""
    numbers = source.numbers(math.prod(like.shape[1:])).view(like.shape)
    return numbers.double() if like.dtype == torch.float64 else numbers


def _positive(like: Tensor, source: PerImage) -> Tensor:
    """Uniform numbers in (0, 1]."""
    return 1 - _numbers(like, source)


def _wrapped(number: int) -> int:
    """A whole number as a signed integer of 64 bits."""
    return (int(number) + 2**63) % 2**64 - 2**63


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's output function of integers of 64 bits, which wrap around."""
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, by: int) -> Tensor:
    """A shift to the right that brings in zeros; torch's own repeats the sign."""
    shifted: Tensor = (z >> by) & (2 ** (64 - by) - 1)
    return shifted
