"""Small made-up images and files."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from regmix.data import ImageSet

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Pixels [H, W(, channels)] to the bytes of an image file."""

    def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        return stream.getvalue()

    return encode


@pytest.fixture
def some_images() -> ImageSet:
    """100 random images 3x6x5 of four classes of unequal size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (100, 3, 6, 5), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [3] * 5)[torch.randperm(100, generator=generator)]
    return ImageSet(images, labels, ("a", "b", "c", "d"))
