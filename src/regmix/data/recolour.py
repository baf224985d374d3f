"""Random operations on colours and shapes: which of them, how strong, and in which order, for each image of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from regmix.data.colour import MOVING, OPERATIONS
from regmix.data.crops import Noise, whole
from regmix.types import Images, Tag, known, require

NAMES = tuple(OPERATIONS)


class Step(NamedTuple):
    """One operation per image, on the host."""

    operation: Int64[Tensor, "batch"]
    """Its place in NAMES."""
    amount: Float64[Tensor, "batch"]


@dataclass(frozen=True)
class NoColour:
    """No operations on colours."""

    name: Tag[Literal["none"]] = field(default="none", kw_only=True)


@dataclass(frozen=True)
class ColourJitter:
    """Changes brightness, contrast, saturation and hue, in a random order (torchvision's ColorJitter).

    Each factor is uniform in [max(0, 1 - b), 1 + b], the turn of the hue in [-hue, hue].
    """

    name: Tag[Literal["jitter"]] = field(default="jitter", kw_only=True)
    brightness: float = 0.4
    """Range b of the brightness, at least 0."""
    contrast: float = 0.4
    """Range b of the contrast, at least 0."""
    saturation: float = 0.4
    """Range b of the saturation, at least 0."""
    hue: float = 0.1
    """Largest turn of the hue, as a share of the circle, in [0, 0.5]."""

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            require(getattr(self, name) >= 0, f"colour {name} is {getattr(self, name)}; it must be at least 0")
        require(0 <= self.hue <= 0.5, f"colour hue is {self.hue}; it must lie in [0, 0.5]")

    draws = 8
    moves = False

    def steps(self, noise: Noise, height: int, width: int) -> list[Step]:
        """The four operations of each image, in its order."""
        names = ("brightness", "contrast", "saturation", "hue")
        amounts = []
        for place, name in enumerate(names):
            b = getattr(self, name)
            low, high = (-b, b) if name == "hue" else (max(0.0, 1 - b), 1 + b)
            amounts.append(low + (high - low) * noise[:, place])
        order, amount = noise[:, 4:].argsort(1), torch.stack(amounts, 1)
        place_of = torch.tensor([NAMES.index(name) for name in names])
        return [Step(place_of[order[:, k]], amount.gather(1, order[:, k : k + 1])[:, 0]) for k in range(4)]


RAND_AUGMENT = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation"),
    *("contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
COLOR_SHAPE = (*("saturation", "brightness", "contrast", "sharpness", "autocontrast", "equalize", "shear_x", "rotate"),)


@dataclass(frozen=True)
class RandAugment:
    """Applies `count` operations in a row, each drawn uniformly, all of the same strength (arXiv 1909.13719).

    Strengths as in torchvision's RandAugment: at magnitude 30 a slope of 0.3, a shift of 150/331 of the width or
    height, 30 degrees, a factor of 1.9 or 0.1, 4 bits, a threshold of 0. Signs are random. Nearest pixel, black beyond
    the border. Methods that remember a perturbation per image cannot follow operations that move pixels.
    """

    name: Tag[Literal["rand_augment"]] = field(default="rand_augment", kw_only=True)
    count: int = 2
    """Operations per image."""
    magnitude: int = 9
    """Strength of the operations, in 0..30."""
    operations: tuple[str, ...] = RAND_AUGMENT
    """The operations that are drawn from."""

    def __post_init__(self) -> None:
        require(self.count >= 1, f"colour count is {self.count}; it must be at least 1")
        _check(self.magnitude, self.operations)

    @property
    def draws(self) -> int:
        """Random numbers per image."""
        return 2 * self.count

    @property
    def moves(self) -> bool:
        """Whether an operation moves pixels."""
        return bool(MOVING & {*self.operations})

    def steps(self, noise: Noise, height: int, width: int) -> list[Step]:
        """The operations of each image, in their order."""
        level = torch.full((len(noise),), self.magnitude / 30, dtype=torch.float64)
        return [
            _step(self.operations, noise[:, 2 * k], level, noise[:, 2 * k + 1], height, width)
            for k in range(self.count)
        ]


@dataclass(frozen=True)
class ColorShape:
    """Applies one operation on colours or shapes to each image, of uniform strength (part of IDBH, arXiv 2301.09879).

    The operations and their strength are settings; those of the published mix are `idbh`. Strengths are measured as in
    rand_augment. Methods that remember a perturbation per image cannot follow operations that move pixels.
    """

    name: Tag[Literal["color_shape"]] = field(default="color_shape", kw_only=True)
    magnitude: int = 30
    """Largest strength, in 0..30; the strength is uniform between 0 and it."""
    operations: tuple[str, ...] = COLOR_SHAPE
    """The operations that are drawn from."""

    def __post_init__(self) -> None:
        _check(self.magnitude, self.operations)

    draws = 3

    @property
    def moves(self) -> bool:
        """Whether an operation moves pixels."""
        return bool(MOVING & {*self.operations})

    def steps(self, noise: Noise, height: int, width: int) -> list[Step]:
        """The one operation of each image."""
        level = noise[:, 1] * self.magnitude / 30
        return [_step(self.operations, noise[:, 0], level, noise[:, 2], height, width)]


@dataclass(frozen=True)
class Idbh:
    """Applies one operation to each image: IDBH's ColorShape with its published operations and strengths.

    With bias "color" each has probability 1/8: saturation by a factor in [0.1, 1.9], brightness and contrast in
    [0.5, 1.9], sharpness in [0.1, 1.9], autocontrast, equalize, a shear by an angle of 0.05 to 0.15 radians in x or y,
    and a rotation by 1 to 10 degrees. With bias "shape" shear (0.05 to 0.35) and rotation (1 to 30) have 0.3 each. Of
    shear and rotation the sign is random; both are about the centre. Source: arXiv 2301.09879 and its public code
    (TreeLLi/DA-Alone-Improves-AT; color for CIFAR-10, shape for SVHN).
    """

    name: Tag[Literal["idbh"]] = field(default="idbh", kw_only=True)
    bias: Literal["color", "shape"] = "color"
    """Which operations are frequent and strong."""

    draws = 3
    moves = True

    def steps(self, noise: Noise, height: int, width: int) -> list[Step]:
        """The one operation of each image."""
        rows = IDBH[self.bias]
        ends = torch.tensor([row[1] for row in rows], dtype=torch.float64).cumsum(0)
        drawn = torch.bucketize(noise[:, 0].contiguous(), ends[:-1], right=True)
        low, high = (torch.tensor([row[k] for row in rows], dtype=torch.float64)[drawn] for k in (2, 3))
        amount = low + (high - low) * noise[:, 1]
        names = [row[0] for row in rows]
        skewed, turned = (
            torch.tensor([name in kinds for name in names])[drawn] for kinds in (("skew_x", "skew_y"), ("rotate",))
        )
        sign = torch.where(noise[:, 2] < 0.5, -1.0, 1.0)
        amount = torch.where(skewed, sign * amount.tan(), torch.where(turned, sign * amount.floor(), amount))
        return [Step(torch.tensor([NAMES.index(name) for name in names])[drawn], amount)]


IDBH: dict[str, tuple[tuple[str, float, float, float], ...]] = {
    "color": (
        ("saturation", 0.125, 0.1, 1.9), ("brightness", 0.125, 0.5, 1.9), ("contrast", 0.125, 0.5, 1.9),
        ("sharpness", 0.125, 0.1, 1.9), ("autocontrast", 0.125, 0, 0), ("equalize", 0.125, 0, 0),
        ("skew_x", 0.0625, 0.05, 0.15), ("skew_y", 0.0625, 0.05, 0.15), ("rotate", 0.125, 1, 11),
    ),
    "shape": (
        ("saturation", 0.08, 0.1, 1.9), ("brightness", 0.08, 0.5, 1.9), ("contrast", 0.04, 0.5, 1.9),
        ("sharpness", 0.08, 0.1, 1.9), ("autocontrast", 0.04, 0, 0), ("equalize", 0.08, 0, 0),
        ("skew_x", 0.15, 0.05, 0.35), ("skew_y", 0.15, 0.05, 0.35), ("rotate", 0.3, 1, 31),
    ),
}  # fmt: skip
"""Of each operation: its probability, and the range of its amount (shears in radians, rotations in whole degrees)."""

ColourConfig = NoColour | ColourJitter | RandAugment | ColorShape | Idbh


def _check(magnitude: int, operations: Sequence[str]) -> None:
    require(0 <= magnitude <= 30, f"colour magnitude is {magnitude}; it must lie in 0..30")
    require(bool(operations), "colour operations are empty; name at least one, or use --colour none")
    for name in operations:
        known(name, NAMES, "colour operation")


def _step(
    operations: Sequence[str], choice: Tensor, level: Tensor, coin: Tensor, height: int, width: int
) -> Step:  # fmt: skip
    """One of the operations per image, with its level in [0, 1]."""
    drawn = whole(choice, torch.full_like(choice, len(operations) - 1).long())
    sign = torch.where(coin < 0.5, 1.0, -1.0).double()
    amounts = torch.stack([amount(name, level, sign, height, width) for name in operations], 1)
    places = torch.tensor([NAMES.index(name) for name in operations])
    return Step(places[drawn], amounts.gather(1, drawn[:, None])[:, 0])


def amount(
    name: str, level: Float64[Tensor, "batch"], sign: Float64[Tensor, "batch"], height: int, width: int
) -> Float64[Tensor, "batch"]:
    """The amount of an operation at a level in [0, 1]; the sign is -1 or 1."""
    match name:
        case "shear_x" | "shear_y" | "skew_x" | "skew_y":
            return 0.3 * level * sign
        case "translate_x":
            return 150 / 331 * width * level * sign
        case "translate_y":
            return 150 / 331 * height * level * sign
        case "rotate":
            return 30 * level * sign
        case "hue":
            return 0.5 * level * sign
        case "posterize":
            return 8 - (4 * level).round()
        case "solarize":
            return 1 - level
        case "brightness" | "saturation" | "contrast" | "sharpness":
            return 1 + 0.9 * level * sign
    return torch.zeros_like(level)


def recoloured(x: Images, steps: Sequence[Step]) -> Images:
    """Applies the steps; the images must belong to the caller, and are changed in place."""
    for operation, amounts in steps:
        for place in sorted({*operation.tolist()}):
            rows = (operation == place).nonzero()[:, 0]  # on the host, so that nothing waits for the device
            there = rows.to(x.device, non_blocking=True)
            x[there] = OPERATIONS[NAMES[place]](x[there], amounts[rows].to(x.device, x.dtype, non_blocking=True))
    return x
