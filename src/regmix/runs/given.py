"""Adversarial images from elsewhere: npz and npy files, tensors saved by torch, and folders of PNG files."""

import hashlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regmix.runs.columns import Source
from regmix.runtime.files import DIGEST, digest
from regmix.types import UserError, first_line

LABELS = ("label", "labels", "y", "y_test")
TENSORS = (".pt", ".pth")
MODES = ("L", "RGB")
"""Kinds of PNG files: 8 bits of grey, or of red, green and blue."""


@dataclass(frozen=True, eq=False)
class GivenFile:
    """What a file or folder holds."""

    images: Tensor
    """[K, C, H, W], uint8, or floating point in units of [0, 1]."""
    index: Tensor | None = None
    """Positions in the test split, int64 [K]; None where the file names none."""
    labels: Tensor | None = None
    """int64 [K]; None where the file holds none."""


def read_given(path: Path, shape: tuple[int, int, int]) -> GivenFile:
    """Reads adversarial images of a shape [C, H, W].

    npz: one array of images; `index` and `label` if it has them (as `--save` writes it). npy: images. pt, pth: a tensor
    of images, or what AutoAttack's and RobustBench's users save: {"adv_complete": images}, or a pair (images,
    predictions), whose predictions are not used. Only tensors are unpickled. A folder: PNG files of 8 bits, named by
    their positions in the test split. Arrays may have their channels last.

    Raises:
        UserError: no such file, another format or shape, or values that are not finite.
    """
    if path.is_dir():
        read = _read_folder(path)
    elif not path.is_file():
        raise UserError(f"{path} does not exist; give a .npz, .npy, .pt or .pth file, or a folder of PNG files")
    elif path.suffix in TENSORS:
        read = GivenFile(_only_images(_read_tensors(path), path))
    elif path.suffix in (".npz", ".npy"):
        read = _read_arrays(path)
    else:
        raise UserError(f"{path} is no .npz, .npy, .pt or .pth file, and no folder of PNG files")
    images = _channels_first(read.images, shape, path)
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"{path} holds images of {images.dtype}; give uint8, or floats in [0, 1]")
    if not images.isfinite().all():
        raise UserError(f"{path} holds NaN or infinity; check the program that made it")
    for values in (read.index, read.labels):
        if values is not None and (values.shape != images.shape[:1] or values.is_floating_point()):
            raise UserError(f"{path} does not have one whole number for each of its {len(images)} images")
    index, labels = (None if values is None else values.long() for values in (read.index, read.labels))
    return GivenFile(images, index, labels)


def given_source(path: Path) -> Source:
    """The file or folder, with a digest of its content."""
    if not path.is_dir():
        return Source(str(path), digest(path))
    names = [f"{file.name} {digest(file)}" for file in sorted(path.glob("*.png"))]
    return Source(str(path), hashlib.sha256("\n".join(names).encode()).hexdigest()[:DIGEST])


def _read_tensors(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise UserError(f"{path} cannot be read as tensors: {reason}") from None


def _read_arrays(path: Path) -> GivenFile:
    try:
        with path.open("rb") as raw:
            held = np.load(raw, allow_pickle=False)
            arrays = {"images": held} if isinstance(held, np.ndarray) else {name: held[name] for name in held.files}
    except (OSError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        tensors = {
            name: torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=False))
            for name, values in arrays.items()
            if values.dtype.kind in "iufb"
        }
    except TypeError as error:
        raise UserError(f"{path} holds numbers of an unusual type: {error}") from None
    index = tensors.get("index")
    labels = next((tensors[name] for name in LABELS if name in tensors), None)
    return GivenFile(_only_images(tensors, path), index, labels)


def _only_images(held: object, path: Path) -> Tensor:
    """The tensor of images in what a file holds: itself, or the only one with four dimensions."""
    if isinstance(held, Mapping):
        held = [*held.values()]
    if isinstance(held, tuple | list):
        held = [each[0] if isinstance(each, tuple | list) and each else each for each in held]
        images = [each for each in held if isinstance(each, Tensor) and each.ndim == 4]
        if len(images) != 1:
            raise UserError(f"{path} holds {len(images)} tensors of images [N, C, H, W]; save one")
        return images[0]
    if not isinstance(held, Tensor) or held.ndim != 4:
        raise UserError(f"{path} holds no tensor of images [N, C, H, W]")
    return held


def _channels_first(images: Tensor, shape: tuple[int, int, int], path: Path) -> Tensor:
    channels, height, width = shape
    if images.shape[1:] == (channels, height, width):
        return images
    if images.shape[1:] == (height, width, channels):
        return images.permute(0, 3, 1, 2)
    was, wanted = ("x".join(map(str, size)) for size in (images.shape[1:], shape))
    raise UserError(f"{path} holds images of {was}; the test images are {wanted} (channels, height, width)")


def _read_folder(path: Path) -> GivenFile:
    from PIL import Image

    files = sorted(path.glob("*.png"))
    if not files:
        raise UserError(
            f"{path} has no PNG files; give a folder of PNG files named by their positions, such as 000012.png"
        )
    images: list[np.ndarray[Any, Any]] = []
    index = []
    for file in files:
        if not (file.stem.isascii() and file.stem.isdecimal()):
            raise UserError(f"{file} is not named by its position in the test split, such as 000012.png; rename it")
        try:
            with Image.open(file) as picture:
                if picture.mode not in MODES:
                    raise UserError(f"{file} is a PNG file of mode {picture.mode}; save 8 bits of grey, or RGB")
                pixels = np.array(picture)
        except (OSError, SyntaxError) as error:
            raise UserError(f"{file} cannot be read: {error}") from None
        if images and pixels.shape != images[0].shape:
            raise UserError(f"{file} has another size than {files[0]}; the images must have that of the test images")
        images.append(pixels)
        index.append(int(file.stem))
    stacked = torch.from_numpy(np.stack(images))
    return GivenFile(stacked if stacked.ndim == 4 else stacked[..., None], torch.tensor(index))
