"""Noise, drawn independently for every pixel and channel."""

import numpy as np
from numpy.random import Generator

from regmix.corruptions.base import Pixels


def gaussian_noise(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """x + c N(0, 1)."""
    c = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return x + c * rng.standard_normal(x.shape)


def shot_noise(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Poisson(c x) / c, the noise of photon counts."""
    c = (500, 250, 100, 75, 50)[severity - 1]
    return rng.poisson(c * x) / c


def impulse_noise(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Salt-and-pepper noise: a share c of the values becomes 0 or 1."""
    c = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    hit, salt = rng.random(x.shape) < c, rng.random(x.shape) < 0.5
    return np.where(hit, salt.astype(x.dtype), x)


def speckle_noise(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """x + c x N(0, 1)."""
    c = (0.06, 0.10, 0.12, 0.16, 0.20)[severity - 1]
    return x + c * x * rng.standard_normal(x.shape)
