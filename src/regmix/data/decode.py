"""Image files and encoded images to uint8 pixels, with Pillow."""

import importlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from regmix.types import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What may be decoded: Pillow's other formats include some that start programs (EPS)."""

Pixels = UInt8[np.ndarray, "height width 3"]


class Encoded(NamedTuple):
    """An image that is not decoded yet, and what an error message calls it."""

    name: str
    content: Path | bytes


def import_optional(name: str) -> ModuleType:
    """Imports a module of an optional dependency; raises UserError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'reading this data needs {name}: pip install "regmix[data]" ({error})') from error


def decode(encoded: Sequence[Encoded], size: int | None) -> UInt8[Tensor, "examples 3 height width"]:
    """Decodes images to RGB, uint8 [N, 3, H, W].

    With a `size`, the shorter side of every image is resized to it (bilinear, antialiased) and the centre is cut
    out, unless the image is size x size already; without, all must be of one size. Grey images get three equal
    channels, 16-bit grey is rounded to 8 bits, transparency is dropped, of an animation the first frame counts,
    and EXIF orientation is ignored. Raises UserError naming the image that cannot be read.
    """
    if not encoded:
        raise UserError("there are no images to decode")
    first = _decode(encoded[0], size)
    pixels = np.empty((len(encoded), 3, *first.shape[:2]), dtype=np.uint8)

    def fill(part: Iterable[int]) -> None:
        for i in part:
            image = _decode(encoded[i], size)
            if image.shape != first.shape:
                raise UserError(
                    f"{encoded[i].name} is {image.shape[1]}x{image.shape[0]} pixels but {encoded[0].name} is "
                    f"{first.shape[1]}x{first.shape[0]}; all images must have one size"
                )
            pixels[i] = image.transpose(2, 0, 1)

    # Pillow lets go of the interpreter while it decodes, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, (range(i, min(i + 256, len(encoded))) for i in range(0, len(encoded), 256))):
            pass
    return torch.from_numpy(pixels)


def _decode(encoded: Encoded, size: int | None) -> Pixels:
    pillow = import_optional("PIL.Image")
    source = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    try:
        with pillow.open(source, formats=FORMATS) as image:
            image = _to_rgb(image)
            if size is not None and image.size != (size, size):
                image = _fit(image, size)
            return np.asarray(image)
    except pillow.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise UserError(f"{encoded.name} is no image of a known kind ({known}); repair or remove it") from None
    # On broken files Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others.
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{encoded.name} cannot be read as an image ({why}); repair or remove it") from error


def _to_rgb(image: "Image.Image") -> "Image.Image":
    if image.mode.startswith("I;16"):
        from PIL import Image

        # Pillow's own conversion would cut 16-bit values off at 255 instead of scaling them.
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no agreed white; convert it to 8 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _fit(image: "Image.Image", size: int) -> "Image.Image":
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
