"""SVHN's cropped digits from the official .mat files."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from regmix.data.download import fetch
from regmix.data.images import ImageSet, Split, check_labels
from regmix.types import Tag, UserError

DIGITS = tuple(map(str, range(10)))
URL = "http://ufldl.stanford.edu/housenumbers/"
MD5: dict[Split, str] = {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
}


@dataclass(frozen=True, kw_only=True)
class Svhn:
    """SVHN, cropped digits: 73,257 training and 26,032 test images, 32x32 RGB, 10 classes.

    Class k is the digit k; in the files the digit 0 has label 10. The official set `extra` is not used. Do not train
    with mirrored images. Source: Netzer et al., Reading Digits in Natural Images, 2011.
    """

    name: Tag[Literal["svhn"]] = "svhn"
    root: str = "data/svhn"
    """Folder with train_32x32.mat and test_32x32.mat."""
    download: bool = False
    """Download the official files (182 and 64 MB) into root, each if it is needed and missing."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, 32, 32] in the official order.

        Raises:
            UserError: a file is missing or damaged.
        """
        path = Path(self.root) / f"{split}_32x32.mat"
        if self.download and not path.is_file():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{path.parent} cannot be made: {error}") from error
            fetch(URL + path.name, path, MD5[split])
        if not path.is_file():
            raise UserError(f"{path} is missing; add --data.download, or put {URL}{path.name} there")
        return _read(path, split)


def _read(path: Path, split: Split) -> ImageSet:
    import scipy.io

    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[split]:
        raise UserError(f"{path} is not the official file (its md5 is wrong); delete it and fetch it again")
    try:
        arrays = scipy.io.loadmat(io.BytesIO(content), variable_names=("X", "y"))
        pixels, labels = arrays["X"], arrays["y"].astype(np.int64).ravel()
    except Exception as error:  # a damaged file can raise nearly any exception
        raise UserError(f"{path} cannot be read ({error!r}); delete it and fetch it again") from error
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)):
        raise UserError(f"{path} must hold X uint8 [32, 32, 3, N] and y with N labels")
    check_labels(path, labels, DIGITS, first=1)
    images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels % 10), DIGITS)
