"""Image files and encoded images to uint8 pixels, with Pillow."""

import importlib
import io
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from regmix.types import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What may be decoded: Pillow's other formats include some that start programs (EPS)."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held: 1 is upright, 2 to 8 are turned or mirrored."""

Pixels = UInt8[np.ndarray, "height width 3"]


class Decoded(NamedTuple):
    """The pixels of an image, and what its EXIF data had to do with them."""

    pixels: Pixels
    turned: bool
    """They were turned or mirrored as the orientation says."""
    unread: bool
    """The EXIF data is damaged, so that the pixels are as they are stored."""


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

    It is turned as its EXIF orientation says, as viewers show it; damaged EXIF data is ignored. With a `size`, the
    shorter side is resized to it (bilinear, antialiased) and the centre is cut out, unless the image is size x size
    already. Grey images get three equal channels, 16-bit grey is rounded to 8 bits, transparency is dropped, and of
    an animation or a file of several pages the first counts. Raises UserError naming the image if it cannot be read,
    or is not of the `shape` (height, width) that all must have.
    """
    return decode_and_tell(encoded, size, shape).pixels


def decode_and_tell(encoded: Encoded, size: int | None, shape: tuple[int, int] | None = None) -> Decoded:
    """What `decode` gives, and what became of the EXIF orientation."""
    decoded = _decode(encoded, size)
    height, width = decoded.pixels.shape[:2]
    if shape is not None and (height, width) != shape:
        raise UserError(
            f"{encoded.name} is {width}x{height} pixels but the first is {shape[1]}x{shape[0]}; "
            "all images must have one size"
        )
    return decoded


def _decode(encoded: Encoded, size: int | None) -> Decoded:
    pillow = import_optional("PIL.Image")
    source = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    formats = _formats(pillow, encoded.name)
    try:
        with pillow.open(source, formats=formats) as image:
            image, turned, unread = _upright(image)
            image = _to_rgb(image)
            if size is not None and image.size != (size, size):
                image = _fit(image, size)
            return Decoded(np.asarray(image), turned, unread)
    except pillow.UnidentifiedImageError:
        known = ", ".join(formats)
        raise UserError(f"{encoded.name} is no image of a known kind ({known}); repair or remove it") from None
    # On broken files Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others.
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{encoded.name} cannot be read as an image ({why}); repair or remove it") from error


def _formats(pillow: ModuleType, name: str) -> list[str]:
    """Of the known formats those that this Pillow was built with."""
    pillow.init()
    # A TGA file does not say what it is: damaged files of other kinds could pass for one.
    wanted = (*FORMATS, "TGA") if name.lower().endswith(".tga") else FORMATS
    return [one for one in wanted if one in pillow.OPEN]


def _upright(image: "Image.Image") -> tuple["Image.Image", bool, bool]:
    """The loaded image as its EXIF orientation says, whether that turned it, and whether the EXIF data is damaged."""
    from PIL.Image import Transpose

    # In the order of the tag's values, from 2 on.
    ways = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    told, unread = _orientation(image)
    image.load()
    # Pillow itself turns TIFF as it loads it, and takes the tag away then.
    left, _ = _orientation(image)
    if left > 1:
        image = image.transpose(Transpose[ways[left - 2]])
    return image, told > 1 or left > 1, unread


def _orientation(image: "Image.Image") -> tuple[int, bool]:
    """The orientation, 1 to 8, and whether the EXIF data cannot be read; values that mean nothing count as 1."""
    from PIL.Image import Exif

    try:
        value: Any = image.getexif().get(ORIENTATION, 1)
        if "exif" in image.info:
            # Pillow raises once only, and that may have been where it opened the image and went on.
            Exif().load(image.info["exif"])
    # Damaged EXIF data makes Pillow raise whatever its reader of TIFF stumbles over.
    except Exception:
        return 1, True
    return (value, False) if isinstance(value, int) and 1 <= value <= 8 else (1, False)


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
