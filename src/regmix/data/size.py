"""Sizes of images as settings: a side, or height and width."""

from typing import Annotated, Literal

from tyro.constructors import PrimitiveConstructorSpec

from regmix.types import UserError

Channels = Literal["rgb", "grey"]
"""Whether images are read with three channels or with one."""


def parse_size(text: str) -> int | tuple[int, int]:
    """Reads a size, written as a side (64) or as HEIGHTxWIDTH (96x128)."""
    parts = text.strip().lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and part.isascii() and len(part) < 10 for part in parts):
        raise UserError(f"size cannot be read: {text!r}; write HEIGHTxWIDTH in pixels such as 96x128, or a side: 64")
    height, *width = map(int, parts)
    return (height, *width) if width and width != [height] else height  # type: ignore[return-value]


def format_size(size: int | tuple[int, int]) -> str:
    """Writes a size as `parse_size` reads it."""
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


Size = Annotated[
    int | tuple[int, int],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="HEIGHTxWIDTH",
        instance_from_str=lambda words: parse_size(words[0]),
        is_instance=lambda value: isinstance(value, (int, tuple)),
        str_from_instance=lambda size: [format_size(size)],
    ),
]
"""A side in pixels, or (height, width); on the command line `64` or `96x128`."""


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """The height and width that a size means."""
    return size if isinstance(size, tuple) else (size, size)
