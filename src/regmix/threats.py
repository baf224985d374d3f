"""Threat models: the allowed perturbations of an image, and the geometry that attacks need."""

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor
from tyro.constructors import PrimitiveConstructorSpec

from regmix import draws
from regmix.draws import Source
from regmix.types import LEAST, MOST, Images, PerExample, Tag, UserError, require


def parse_eps(text: str) -> float:
    """Reads a radius in pixel units of [0, 1], written as a fraction (`8/255`) or as a decimal (`0.03`)."""
    numerator, slash, denominator = text.strip().partition("/")
    try:
        eps = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        eps = float("nan")
    if not 0 <= eps < float("inf"):
        raise UserError(f"eps cannot be read: {text!r}; write it as 8/255 or as a decimal such as 0.03")
    return eps


def same_eps(a: float, b: float) -> bool:
    """Whether two radii are equal up to the digits that their files keep."""
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9)


def format_eps(eps: float) -> str:
    """Writes a radius as `8/255` if it is a whole number of grey levels and has no short decimal, else as a decimal."""
    levels = eps * 255
    whole = eps > 0 and abs(levels - round(levels)) < 1e-9 * levels
    return f"{round(levels)}/255" if whole and float(f"{eps:.2g}") != eps else f"{eps:.6g}"


GREY = "at 1/2 every image can be turned into the same grey, so no model can be robust; radii are in units of [0, 1]"
"""What to tell where `turns_grey`."""


def turns_grey(norm: str, eps: float) -> bool:
    """Whether every image can be turned into the same grey, so that no model can be robust: L-infinity from 1/2 on."""
    return norm == "linf" and eps >= 0.5


Eps = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="EPS",
        instance_from_str=lambda words: parse_eps(words[0]),
        is_instance=lambda value: isinstance(value, (int, float)),
        str_from_instance=lambda eps: [format_eps(eps)],
    ),
]
"""A radius in pixel units of [0, 1]; on the command line `8/255` or `0.03`."""


def _check_eps(eps: object, most: float = MOST) -> None:
    """Raises UserError unless eps is a number in [LEAST, most]."""
    if not isinstance(eps, Real) or isinstance(eps, bool):
        raise UserError(f"eps is {eps!r}; write a number in units of the pixel range: 8/255")
    fits = LEAST <= (radius := float(eps)) <= most
    require(fits, f"eps is {radius:g}; it must lie in [{LEAST:g}, {most:g}], in units of the pixel range: 8/255")


class Threat(Protocol):
    """The set of perturbations {delta : ||delta|| <= eps, x + delta in [0, 1]}; see `Linf` for the methods."""

    @property
    def eps(self) -> float: ...
    def project(self, delta: Tensor, x: Tensor) -> Tensor: ...
    def direction(self, gradient: Tensor, images: Tensor | None = None) -> Tensor: ...
    def uniform(self, x: Tensor, source: Source = None) -> Tensor: ...
    def corner(self, x: Tensor, source: Source = None) -> Tensor: ...
    def norm(self, delta: Tensor) -> Tensor: ...


def _to_box(delta: Tensor, x: Tensor) -> Tensor:
    """Clips x + delta to [0, 1] and returns the new delta."""
    return (x + delta).clamp(0, 1) - x


def sparse_sign(gradient: Tensor, least: Tensor) -> Tensor:
    """A step of L1 length 1 along the signs of the elements with |gradient| >= least, where `least` is [B, 1]."""
    flat = gradient.flatten(1)
    step = torch.where(flat.abs() >= least, flat.sign(), 0)
    return (step / step.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


def _per_example(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def check_threat(threat: object) -> None:
    """Raises UserError unless the value is a threat; a bare radius is not one."""
    if isinstance(threat, type) or not hasattr(threat, "project"):
        shown = f"{threat.__name__}, a class" if isinstance(threat, type) else repr(threat)
        raise UserError(f"the threat is {shown}; write Linf(8 / 255), L2(0.5) or L1(12)")


@dataclass(frozen=True)
class Linf:
    """Every pixel may change by at most eps: max |delta_i| <= eps."""

    name: Tag[Literal["linf"]] = field(default="linf", kw_only=True)
    eps: Eps = 8 / 255
    """Radius in units of the pixel range [0, 1], such as 8/255 or 0.03."""

    def __post_init__(self) -> None:
        _check_eps(self.eps, 1)

    def project(self, delta: Images, x: Images) -> Images:
        """The nearest perturbation in the set: clip to +-eps, then clip x + delta to [0, 1]."""
        return _to_box(delta.clamp(-self.eps, self.eps), x)

    def direction(self, gradient: Images, images: Images | None = None) -> Images:
        """The steepest direction of unit size: sign(gradient)."""
        return gradient.sign()

    def uniform(self, x: Images, source: Source = None) -> Images:
        """A perturbation drawn uniformly from the ball (not clipped to the image's range)."""
        return draws.uniform(x, source, -1, 1).mul_(self.eps)

    def corner(self, x: Images, source: Source = None) -> Images:
        """eps * sign(U(-1, 1)), a random corner of the ball (not clipped to the image's range)."""
        noise = draws.uniform(x, source, -1, 1)
        return torch.full_like(noise, self.eps).copysign_(noise)

    def norm(self, delta: Images) -> PerExample:
        """max |delta_i| per example."""
        return delta.abs().amax((1, 2, 3))  # flattening would copy images in channels_last


@dataclass(frozen=True)
class L2:
    """The Euclidean length of the perturbation is at most eps: ||delta||_2 <= eps."""

    name: Tag[Literal["l2"]] = field(default="l2", kw_only=True)
    eps: Eps = 128 / 255
    """Radius in units of the pixel range [0, 1], such as 128/255 or 0.5."""

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def project(self, delta: Images, x: Images) -> Images:
        """Scales delta into the ball, then clips x + delta to [0, 1] (which never lengthens delta)."""
        length = self.norm(delta).clamp_min(self.eps)
        return _to_box(delta * _per_example(self.eps / length, delta), x)

    def direction(self, gradient: Images, images: Images | None = None) -> Images:
        """The steepest direction of unit length: gradient / ||gradient||_2 (0 where the gradient is 0)."""
        # Scale first, because squares of very small or large gradients leave the range of float32.
        largest = gradient.flatten(1).abs().amax(1)
        gradient = gradient / _per_example(torch.where(largest > 0, largest, 1.0), gradient)
        length = self.norm(gradient)
        return gradient / _per_example(torch.where(length > 0, length, 1.0), gradient)

    def uniform(self, x: Images, source: Source = None) -> Images:
        """A perturbation drawn uniformly from the ball (not clipped to the image's range)."""
        radius = draws.uniform(x.new_empty(len(x), 1), source)[:, 0]
        return self.corner(x, source) * _per_example(radius ** (1 / x[0].numel()), x)

    def corner(self, x: Images, source: Source = None) -> Images:
        """A perturbation drawn uniformly from the sphere of radius eps (not clipped to the image's range)."""
        return self.eps * self.direction(draws.normal(x, source))

    def norm(self, delta: Images) -> PerExample:
        """||delta||_2 per example."""
        length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length


@dataclass(frozen=True)
class L1:
    """The absolute changes of all pixel values add up to at most eps: sum |delta_i| <= eps."""

    name: Tag[Literal["l1"]] = field(default="l1", kw_only=True)
    eps: Eps = 12.0
    """Radius in units of the pixel range [0, 1], summed over all pixels and channels (usual for CIFAR-10: 12)."""

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def project(self, delta: Images, x: Images) -> Images:
        """The nearest perturbation in the intersection of the ball and the image's range (arXiv 2103.01208).

            d_i = sign(delta_i) min(max(|delta_i| - t, 0), room_i)

        room_i is the distance from x_i to 0 or 1 in the direction of delta_i; t is the smallest t >= 0 with
        sum |d_i| <= eps.
        """
        flat = delta.flatten(1)
        size, room = flat.abs(), torch.where(delta > 0, 1 - x, x).flatten(1)
        # As t decreases, |d_i| begins to grow at t = |delta_i| and stops at t = |delta_i| - room_i.
        turns, order = torch.cat([size, (size - room).clamp_min(0)], 1).sort(1, descending=True)
        moving = torch.where(order < size.shape[1], 1.0, -1.0).to(flat.dtype).cumsum(1)
        used = (moving[:, :-1] * (turns[:, :-1] - turns[:, 1:])).cumsum(1)
        used = torch.cat([torch.zeros_like(used[:, :1]), used], 1)
        last = ((used <= self.eps).sum(1, keepdim=True) - 1).clamp_max(used.shape[1] - 2)
        left = (self.eps - used.gather(1, last)) / moving.gather(1, last).clamp_min(1)
        fits = torch.minimum(size, room).sum(1, keepdim=True) <= self.eps
        t = torch.where(fits, 0, turns.gather(1, last) - left)
        d = torch.minimum((size - t).clamp_min(0), room)
        # Correct the rounding error of sums over thousands of elements.
        d = d * (self.eps / d.sum(1, keepdim=True).clamp_min(self.eps))
        return (flat.sign() * d).view_as(delta)

    def direction(self, gradient: Images, images: Images | None = None) -> Images:
        """A sparse step of unit length: the signs of the 5 % of elements with the largest |gradient|.

        The steepest step would change a single element, which soon reaches the border of the image's range (arXiv
        1904.13000). If `images` are given, elements at the border that would leave it are not counted.
        """
        if images is not None:
            gradient = torch.where(torch.where(gradient > 0, images < 1, images > 0), gradient, 0)
        size = gradient.flatten(1).abs()
        count = max(1, round(size.shape[1] / 20))
        least = size.topk(count, 1).values[:, -1:]
        return sparse_sign(gradient, least)

    def uniform(self, x: Images, source: Source = None) -> Images:
        """A perturbation drawn uniformly from the ball (not clipped to the image's range)."""
        radius = draws.uniform(x.new_empty(len(x), 1), source)[:, 0]
        return self.corner(x, source) * _per_example(radius ** (1 / x[0].numel()), x)

    def corner(self, x: Images, source: Source = None) -> Images:
        """A perturbation drawn uniformly from the sphere of radius eps (not clipped to the image's range)."""
        size = draws.exponential(x, source)
        return size.copysign_(draws.uniform(x, source, -1, 1)) * _per_example(self.eps / self.norm(size), x)

    def norm(self, delta: Images) -> PerExample:
        """sum |delta_i| per example."""
        return delta.flatten(1).abs().sum(1)


ThreatConfig = Linf | L2 | L1
