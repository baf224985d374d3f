"""Blurs: Gaussian, glass, defocus and zoom."""

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from scipy import ndimage

from regmix.corruptions.base import Pixels


def _smooth(x: Pixels, sigma: float) -> Pixels:
    smooth: Pixels = ndimage.gaussian_filter(x, sigma, axes=(2, 3), mode="nearest")
    return smooth


def gaussian_blur(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Convolution with a Gaussian of standard deviation c pixels."""
    return _smooth(x, (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1])


def glass_blur(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Smooths, then gives every pixel its own colour or that of a neighbour above or to the left, and smooths again.

    Pixels are visited from the lower right. The public code means to swap the two pixels but copies one; so does this.
    """
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    x = np.floor(255 * _smooth(x, sigma)) / 255
    every = np.arange(len(x))
    for _ in range(rounds):
        for line in range(x.shape[2] - 1, 1, -1):
            for column in range(x.shape[3] - 1, 1, -1):
                right, down = rng.integers(-1, 1, (2, len(x)))
                x[:, :, line, column] = x[every, :, line + down, column + right]
    return _smooth(x, sigma)


def defocus_blur(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Convolution with a disk of radius r pixels, whose edge is softened by a Gaussian of 3 x 3 pixels."""
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    reach = np.arange(-3, 4)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(float)
    bell = np.exp(-(np.arange(-1, 2) ** 2) / (2 * softness**2))
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(bell, bell) / bell.sum() ** 2, mode="constant")
    blurred: Pixels = ndimage.convolve(x, kernel[None, None], mode="mirror")
    return blurred


def zoom_blur(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """The mean of the image and of its zoomed copies, with zoom factors from 1 to c in steps of 0.01."""
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


Maps = Float[np.ndarray, "images channels height width"]


def zoomed(x: Maps, factor: float) -> Maps:
    """The middle of every image, enlarged by a factor, in the size of the image."""
    sides = x.shape[2:]
    kept = [int(np.ceil(side / factor)) for side in sides]
    top, left = ((side - keep) // 2 for side, keep in zip(sides, kept, strict=True))
    large: Maps = ndimage.zoom(x[:, :, top : top + kept[0], left : left + kept[1]], (1, 1, factor, factor), order=1)
    top, left = ((have - side) // 2 for have, side in zip(large.shape[2:], sides, strict=True))
    return large[:, :, top : top + sides[0], left : left + sides[1]]
