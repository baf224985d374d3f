"""Motion blur, snow, and frost, whose photographs are those of the package imagecorruptions."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from regmix.corruptions.base import Pixels
from regmix.corruptions.blur import Maps, zoomed
from regmix.types import UserError

PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""There is a sixth, which the public code never takes either."""
REDUCED = 5
"""Every fifth pixel of a photograph is used, as bilinear resizing to a fifth does."""
GREY = np.array([0.299, 0.587, 0.114])[:, None, None]


def motion_blur(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Smears every image in a random direction within 45 degrees of the horizontal."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return _smeared(x, radius, sigma, rng.uniform(-45, 45, len(x)))


def snow(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Bleaches the image, and adds flakes of noise that are smeared downwards, once upright and once upside down."""
    mean, deviation, zoom, least, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]  # fmt: skip
    flakes = zoomed(rng.normal(mean, deviation, (len(x), 1, *x.shape[2:])), zoom)
    flakes = np.floor(255 * np.where(flakes < least, 0, flakes).clip(0, 1)) / 255
    flakes = _smeared(flakes, radius, sigma, rng.uniform(-135, -45, len(x)))
    bleached = np.maximum(x, 1.5 * (GREY * x).sum(1, keepdims=True) + 0.5)
    made: Pixels = kept * x + (1 - kept) * bleached + flakes + flakes[:, :, ::-1, ::-1]
    return made


def frost(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Adds a random part of a photograph of frost.

    Raises:
        UserError: the package with the photographs is not installed, or the images are larger than they are.
    """
    kept, added = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    height, width = x.shape[2:]
    made = kept * x
    for image, number in zip(made, rng.integers(len(PHOTOGRAPHS), size=len(x)), strict=True):
        photograph = _photograph(int(number))
        step = min(REDUCED, photograph.shape[1] // (height + 1), photograph.shape[2] // (width + 1))
        if step < 1:
            raise UserError(f"frost: the images are {height}x{width}, larger than the photographs; leave frost out")
        reduced = photograph[:, step // 2 :: step, step // 2 :: step]
        top, left = rng.integers(reduced.shape[1] - height), rng.integers(reduced.shape[2] - width)
        image += added * reduced[:, top : top + height, left : left + width]
    return made


def _smeared(x: Maps, radius: int, sigma: float, angle: NDArray[np.float64]) -> Maps:
    """A mean along a line from every pixel, 2 r + 1 pixels long, weighted by half a Gaussian; as ImageMagick does it.

    angle: of the line of every image, in degrees. Beyond the border, the nearest pixel counts.
    """
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    down, right = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    every = np.arange(len(x))[:, None, None]
    blurred = np.zeros_like(x)
    for distance, weight in enumerate(weights):
        # -ceil(a - 1/2) rounds half-way values as the public code does.
        dy, dx = (-np.ceil(distance * part - 0.5).astype(int)[:, None] for part in (down, right))
        rows = (np.arange(x.shape[2]) - dy).clip(0, x.shape[2] - 1)
        columns = (np.arange(x.shape[3]) - dx).clip(0, x.shape[3] - 1)
        blurred += weight * x[every, :, rows[:, :, None], columns[:, None]].transpose(0, 3, 1, 2)
    return blurred


@cache
def _photograph(number: int) -> NDArray[np.float64]:
    """A photograph of frost, [3, H, W] in [0, 1]."""
    from PIL import Image

    found = find_spec("imagecorruptions")  # its code is not run
    folder = next(iter(found.submodule_search_locations or ()), None) if found else None
    if folder is None:
        raise UserError('frost needs the photographs of imagecorruptions: pip install "regmix[corruptions]"')
    with Image.open(Path(folder) / "frost" / PHOTOGRAPHS[number]) as picture:
        pixels = np.array(picture.convert("RGB"), dtype=np.float64)
    return pixels.transpose(2, 0, 1) / 255
