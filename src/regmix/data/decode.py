"""Image files and encoded images to uint8 pixels, with Pillow."""

import importlib
import io
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8

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


def decode(encoded: Encoded, size: int | None, shape: tuple[int, int] | None = None) -> Pixels:
    """Decodes an image to RGB, uint8 [H, W, 3].

    With a `size`, the shorter side of the image is resized to it (bilinear, antialiased) and the centre is cut out,
    unless the image is size x size already. Grey images get three equal channels, 16-bit grey is rounded to 8 bits,
    transparency is dropped, of an animation the first frame counts, and EXIF orientation is ignored. Raises UserError
    naming the image if it cannot be read, or is not of the `shape` (height, width) that all must have.
    """
    pixels = _decode(encoded, size)
    if shape is not None and pixels.shape[:2] != shape:
        raise UserError(
            f"{encoded.name} is {pixels.shape[1]}x{pixels.shape[0]} pixels but the first is {shape[1]}x{shape[0]}; "
            "all images must have one size"
        )
    return pixels


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
