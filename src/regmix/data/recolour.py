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

    That one of eight operations is drawn is published; which eight, and how strong, is not known here, so both are
    settings. Strengths are measured as in rand_augment. Methods that remember a perturbation per image cannot follow
    operations that move pixels.
    """

    name: Tag[Literal["color_shape"]] = field(default="color_shape", kw_only=True)
    magnitude: int = 30
    """Largest strength, in 0..30; the strength is uniform between 0 and it (not known)."""
    operations: tuple[str, ...] = COLOR_SHAPE
    """The operations that are drawn from (not known)."""

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


ColourConfig = NoColour | ColourJitter | RandAugment | ColorShape


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
        case "shear_x" | "shear_y":
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
