"""Decodes images to uint8 pixels with Pillow."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from regmix.data.size import Channels, Size, height_and_width
from regmix.runtime.imported import optional
from regmix.types import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that may be decoded. Some of Pillow's other formats start programs (EPS)."""

ORIENTATION = 0x0112
"""EXIF tag of the orientation: 1 is upright, 2 to 8 are rotated or mirrored."""

PHOTOMETRIC = 262
"""TIFF tag of what 0 means: 0 is white, 1 is black. Pillow regards it for 8 bits, not for 16."""

Pixels = UInt8[np.ndarray, "height width channels"]

LUMA = np.array([19595, 38470, 7471])
"""Weights of red, green and blue in grey (ITU-R BT.601), in units of 2^-16, as Pillow has them."""


class Decoded(NamedTuple):
    """The pixels of an image, and what a user might not expect about them."""

    pixels: Pixels
    turned: bool
    """The pixels were rotated or mirrored to be upright."""
    unread: bool
    """The EXIF data is damaged, so the pixels are as stored."""
    transparent: bool
    """Pixels are transparent, and have the colours that are stored beneath."""


class Encoded(NamedTuple):
    """An encoded image, and its name for error messages."""

    name: str
    content: Path | bytes


def import_optional(name: str) -> ModuleType:
    """Imports a module of an optional dependency.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    module: ModuleType = optional(name, f"reading this data needs {name}", '"regmix[data]"')
    return module


def decode(
    encoded: Encoded, size: Size | None, shape: tuple[int, int] | None = None, channels: Channels = "rgb"
) -> Pixels:
    """Decodes an image to RGB, uint8 [H, W, 3], or to grey, uint8 [H, W, 1].

    The EXIF orientation is applied, as image viewers do; damaged EXIF data is ignored. Grey images get three equal
    channels, 16-bit grey is rounded to 8 bits, and transparency is dropped: a transparent pixel has the colour that is
    stored beneath. Of an animation or a file of several pages the first image is read. Colours become grey with
    Pillow's weights, after the image is resized.

    Args:
        size: resize the image, so that it just covers this height and width (bilinear, antialiased), and crop the
            centre, unless it already has this size. None: keep the size.
        shape: the (height, width) that the result must have; None: any.

    Raises:
        UserError: the image cannot be read, or has another shape; the message names it.
    """
    return decode_and_tell(encoded, size, shape, channels).pixels


def upright_pixels(image: "Image.Image", size: Size, channels: Channels) -> Pixels:
    """What `decode` makes of the file of an image that is open already."""
    with _blaming("the image"):
        return _in_channels(_pixels(image, height_and_width(size)).pixels, channels)


def decode_and_tell(
    encoded: Encoded, size: Size | None, shape: tuple[int, int] | None = None, channels: Channels = "rgb"
) -> Decoded:
    """Like `decode`, and tells what a user might not expect about the pixels."""
    decoded = _decode(encoded, None if size is None else height_and_width(size))
    decoded = decoded._replace(pixels=_in_channels(decoded.pixels, channels))
    height, width = decoded.pixels.shape[:2]
    if shape is not None and (height, width) != shape:
        raise UserError(
            f"{encoded.name} is {width}x{height} pixels but the first is {shape[1]}x{shape[0]}; "
            "all images must have the same size"
        )
    return decoded


def _decode(encoded: Encoded, size: tuple[int, int] | None) -> Decoded:
    pillow = import_optional("PIL.Image")
    source = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    formats = _formats(pillow, encoded.name)
    with _blaming(encoded.name):
        try:
            with pillow.open(source, formats=formats) as image:
                return _pixels(image, size)
        except pillow.UnidentifiedImageError:
            known = ", ".join(formats)
            complaint = f"{encoded.name} is not an image of a known format ({known}); repair or remove it"
            raise UserError(complaint) from None


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Raises UserError with the name of the image for whatever Pillow raises."""
    try:
        yield
    except UserError:
        raise
    # On broken files Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others.
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise UserError(f"{name} cannot be read as an image ({cause}); repair or remove it") from error


def is_transparent(image: "Image.Image") -> bool:
    """Whether a Pillow image has pixels that are transparent, if only in part."""
    if not image.has_transparency_data:
        return False
    return bool(image.convert("RGBA").getchannel("A").histogram()[255] < image.width * image.height)


def is_turned(image: "Image.Image") -> bool:
    """Whether a Pillow image is to be shown in another orientation, as its EXIF data says."""
    return _orientation(image)[0] > 1


def _pixels(image: "Image.Image", size: tuple[int, int] | None) -> Decoded:
    if image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
        raise ValueError("16-bit grey in which 0 is white; convert the image to 8 bits per channel")
    image, turned, unread = _upright(image)
    transparent = is_transparent(image)
    image = to_rgb(image)
    if size is not None and image.size != size[::-1]:
        image = _fit(image, *size)
    return Decoded(np.asarray(image), turned, unread, transparent)


def _in_channels(pixels: Pixels, channels: Channels) -> UInt8[np.ndarray, "height width wanted"]:
    if channels == "rgb":
        return pixels
    grey: UInt8[np.ndarray, "height width 1"] = ((pixels @ LUMA + (1 << 15)) >> 16).astype(np.uint8)[:, :, None]
    return grey


def _formats(pillow: ModuleType, name: str) -> list[str]:
    """The allowed formats that this build of Pillow supports."""
    pillow.init()
    # TGA has no signature, so damaged files of other formats could pass for TGA.
    allowed = (*FORMATS, "TGA") if name.lower().endswith(".tga") else FORMATS
    return [file_format for file_format in allowed if file_format in pillow.OPEN]


def _upright(image: "Image.Image") -> tuple["Image.Image", bool, bool]:
    """The loaded image made upright, whether that changed it, and whether its EXIF data is damaged."""
    from PIL.Image import Transpose

    # For the values 2 to 8 of the tag.
    ways = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    before, unread = _orientation(image)
    image.load()
    # Pillow itself turns TIFF images upright as it loads them, and removes the tag.
    remaining, _ = _orientation(image)
    if remaining > 1:
        image = image.transpose(Transpose[ways[remaining - 2]])
    return image, before > 1 or remaining > 1, unread


def _orientation(image: "Image.Image") -> tuple[int, bool]:
    """The orientation, 1 to 8, and whether the EXIF data is damaged. Invalid values count as 1."""
    from PIL.Image import Exif

    try:
        value: Any = image.getexif().get(ORIENTATION, 1)
        if "exif" in image.info:
            # Pillow raises only the first time, which may have been when it opened the image and ignored the error.
            Exif().load(image.info["exif"])
    # On damaged EXIF data Pillow raises many kinds of exceptions.
    except Exception:
        return 1, True
    return (value, False) if isinstance(value, int) and 1 <= value <= 8 else (1, False)


def to_rgb(image: "Image.Image") -> "Image.Image":
    """The image in RGB; 16-bit grey is scaled, transparency is dropped. Raises ValueError for 32-bit pixels."""
    if image.mode.startswith("I;16"):
        from PIL import Image

        # Pillow's own conversion clips 16-bit values at 255 instead of scaling them.
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its pixels have no defined white level; convert the image to 8 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _fit(image: "Image.Image", height: int, width: int) -> "Image.Image":
    from PIL import Image

    cut_width = min(image.width, image.height * width / height)
    cut_height = min(image.height, image.width * height / width)
    left, top = (image.width - cut_width) / 2, (image.height - cut_height) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
