"""Weather and light: fog, brightness, contrast, saturation."""

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from regmix.corruptions.base import Pixels


def fog(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """(x + c clouds) m / (m + c), with the image's largest value m and a fractal cloud map in [0, 1]."""
    c, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[severity - 1]
    height, width = x.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    clouds: Pixels = _clouds(len(x), side, decay, rng)[:, None, :height, :width]
    most: Pixels = x.max((1, 2, 3), keepdims=True)
    foggy: Pixels = (x + c * clouds) * most / (most + c)
    return foggy


def _clouds(count: int, side: int, decay: float, rng: Generator) -> Float[np.ndarray, "images side side"]:
    """Cloud maps in [0, 1] by the diamond-square algorithm on a torus.

    A midpoint is the mean of its four neighbours plus noise, which is divided by `decay` whenever the step is halved.
    """
    heights = np.zeros((count, side, side))
    step, noise = side, 100.0

    def with_noise(four: Float[np.ndarray, "images lines columns"]) -> Float[np.ndarray, "images lines columns"]:
        return four / 4 + noise * rng.uniform(-noise, noise, four.shape)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        heights[:, half::step, half::step] = with_noise(pairs + np.roll(pairs, -1, 2))
        middles = heights[:, half::step, half::step]
        across = corners + np.roll(corners, -1, 2) + middles + np.roll(middles, 1, 1)
        heights[:, ::step, half::step] = with_noise(across)
        along = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 2)
        heights[:, half::step, ::step] = with_noise(along)
        step, noise = half, noise / decay
    heights -= heights.min((1, 2), keepdims=True)
    heights /= heights.max((1, 2), keepdims=True)
    return heights


def brightness(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Adds c to the value of the HSV colour."""
    c = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value: Pixels = x.max(1, keepdims=True)
    brighter = np.minimum(value + c, 1)
    return np.where(value > 0, x * (brighter / np.where(value > 0, value, 1)), brighter)


def saturate(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Maps the saturation s of the HSV colour to a s + b. Grey pixels count as red."""
    a, b = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))[severity - 1]
    value: Pixels = x.max(1, keepdims=True)
    spread = value - x.min(1, keepdims=True)
    old = np.where(value > 0, spread / np.where(value > 0, value, 1), 0)
    new = np.clip(a * old + b, 0, 1)
    # Distance of every channel below the value, relative to the largest such distance.
    red = np.array([0.0, 1.0, 1.0])[None, :, None, None]
    below = np.where(spread > 0, (value - x) / np.where(spread > 0, spread, 1), red)
    return value * (1 - new * below)


def contrast(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """mean + c (x - mean), with the mean of every channel over the image."""
    c = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean: Pixels = x.mean((2, 3), keepdims=True)
    flat: Pixels = mean + c * (x - mean)
    return flat
