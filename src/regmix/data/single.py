"""Image files that belong to no data set, as a trained model takes them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from regmix.data.class_folders import SUFFIXES, visible_files
from regmix.data.decode import Encoded, decode, import_optional, upright_pixels
from regmix.data.size import Channels
from regmix.types import UserError, require

if TYPE_CHECKING:
    from PIL.Image import Image

Photo = Union[str, Path, bytes, "Image"]
"""A file, the content of one, or an image of Pillow."""


@dataclass(frozen=True)
class Transform:
    """Makes of an image what a model takes, as the data readers do that decode files.

    A value without state: it can be the `transform` of a torchvision data set, and be sent to other processes.
    """

    shape: tuple[int, int, int]
    """[C, H, W] of the model's images."""

    def __call__(self, image: Photo) -> Float[Tensor, "channels height width"]:
        """The pixels in [0, 1], see `read_image`."""
        return read_image(image, self.shape).float() / 255


def read_image(image: Photo, shape: tuple[int, int, int]) -> UInt8[Tensor, "channels height width"]:
    """Decodes a file, or the content of one, or takes an image of Pillow, to a model's shape [C, H, W].

    The image is made upright, resized so that it just covers the shape, and the centre is cut out, as in `decode`. A
    model of one channel gets the grey of the colours.

    Raises:
        UserError: the image cannot be read, is of another type, or the shape has neither one nor three channels.
    """
    channels, height, width = shape
    require(
        channels in (1, 3),
        f"the model takes images of {channels} channels, and files have 1 or 3; make the tensors yourself",
    )
    colours: Channels = "grey" if channels == 1 else "rgb"
    if isinstance(image, str | Path | bytes):
        encoded = Encoded("the image", image) if isinstance(image, bytes) else Encoded(str(image), Path(image))
        pixels = decode(encoded, (height, width), channels=colours)
    elif isinstance(image, import_optional("PIL.Image").Image):
        pixels = upright_pixels(image, (height, width), colours)
    else:
        raise UserError(f"an image is {type(image).__name__}; give a file, its bytes, or an image of Pillow")
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The named files, and the images at any depth of the named folders, sorted within each folder.

    Raises:
        UserError: a path that does not exist, or a folder without images.
    """
    files = []
    for path in paths:
        require(path.exists(), f"{path} does not exist; give image files or folders")
        if path.is_dir():
            inside = sorted(file for file in visible_files(path) if file.suffix.lower() in SUFFIXES)
            require(bool(inside), f"{path} has no images; convert photographs to JPEG or PNG")
            files += inside
        else:
            files.append(path)
    return files
