"""Random rectangles of images that are erased."""

from dataclasses import dataclass, field
from typing import Literal

import torch

from regmix.data.crops import RECTANGLE_DRAWS, Noise, Rectangles, check_ranges, draw_rectangles, whole
from regmix.types import Tag, require


@dataclass(frozen=True)
class NoErasing:
    """Nothing is erased."""

    name: Tag[Literal["none"]] = field(default="none", kw_only=True)


@dataclass(frozen=True)
class RandomErasing:
    """Erases a rectangle of random area and shape with a probability (arXiv 1708.04896), like torchvision.

    The share of the image's area is uniform in `scale`, the height divided by the width log-uniform in `ratio`, the
    place uniform; after ten rectangles that are not smaller than the image in both directions nothing is erased.
    """

    name: Tag[Literal["random"]] = field(default="random", kw_only=True)
    probability: float = 0.5
    """Probability that an image loses a rectangle, in [0, 1]."""
    scale: tuple[float, float] = (0.02, 0.33)
    """Smallest and largest share of the image's area, in (0, 1]."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Smallest and largest height divided by width."""
    fill: float = 0.0
    """Value of erased pixels, in [0, 1]."""

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, f"erase probability is {self.probability}; it must lie in [0, 1]")
        require(0 <= self.fill <= 1, f"erase fill is {self.fill}; it must lie in [0, 1]")
        check_ranges("erase", self.scale, self.ratio)

    draws = 1 + RECTANGLE_DRAWS

    def rectangles(self, noise: Noise, height: int, width: int) -> Rectangles:
        """The rectangles that are erased; empty ones where nothing is."""
        upright = 1 / self.ratio[1], 1 / self.ratio[0]
        found, fits = draw_rectangles(noise[:, 1:], height, width, self.scale, upright, most=(height - 1, width - 1))
        return torch.where((fits & (noise[:, 0] < self.probability))[:, None], found, 0)


@dataclass(frozen=True)
class Cutout:
    """Erases a square whose centre is a uniform pixel; parts of it may lie outside of the image (arXiv 1708.04552)."""

    name: Tag[Literal["cutout"]] = field(default="cutout", kw_only=True)
    side: int = 16
    """Side of the square in pixels (published: 16 for CIFAR-10, 8 for CIFAR-100)."""
    fill: float = 0.0
    """Value of erased pixels, in [0, 1]. The paper erases after normalisation, to the mean colour."""

    def __post_init__(self) -> None:
        require(self.side >= 1, f"erase side is {self.side}; it must be at least 1 pixel")
        require(0 <= self.fill <= 1, f"erase fill is {self.fill}; it must lie in [0, 1]")

    draws = 2

    def rectangles(self, noise: Noise, height: int, width: int) -> Rectangles:
        """The squares that are erased, which may begin outside of the image."""
        last = torch.tensor([height - 1, width - 1])
        corners = [whole(noise[:, k], last[k].expand(len(noise))) - self.side // 2 for k in range(2)]
        side = torch.full_like(corners[0], self.side)
        return torch.stack([*corners, side, side], 1)


EraseConfig = NoErasing | RandomErasing | Cutout
