"""Image files that belong to no data set, as a trained model takes them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from regmix.data.decode import Encoded, decode
from regmix.data.folder import SUFFIXES, visible_files
from regmix.types import require


def read_image(image: str | Path | bytes, shape: tuple[int, int, int]) -> UInt8[Tensor, "channels height width"]:
    """Decodes a file, or the content of one, to a model's shape [C, H, W].

    The image is made upright, resized so that it just covers the shape, and the centre is cut out, as in `decode`. A
    model of one channel gets the grey of the colours.

    Raises:
        UserError: the image cannot be read, or the shape has neither one nor three channels.
    """
    channels, height, width = shape
    require(
        channels in (1, 3),
        f"the model takes images of {channels} channels, and files have 1 or 3; make the tensors yourself",
    )
    encoded = Encoded("the image", image) if isinstance(image, bytes) else Encoded(str(image), Path(image))
    pixels = decode(encoded, (height, width), channels="grey" if channels == 1 else "rgb")
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
