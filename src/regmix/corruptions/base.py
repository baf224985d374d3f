"""The protocol of a corruption."""

from typing import Protocol, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

Pixels: TypeAlias = Float[np.ndarray, "images 3 height width"]
"""Colour images in [0, 1]."""


class Corruption(Protocol):
    """Maps (images, severity 1 to 5, random generator) to images, which the caller clips to [0, 1]."""

    def __call__(self, x: Pixels, severity: int, rng: Generator) -> Pixels: ...
