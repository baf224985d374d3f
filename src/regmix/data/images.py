"""A labelled set of images in memory, which is what every source of data becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from regmix.types import UserError

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 [N, C, H, W], their labels int64 [N] in [0, len(classes)), and the names of the classes.

    Raises UserError if the numbers of images and labels differ or a label has no class.
    """

    images: UInt8[Tensor, "examples channels height width"]
    labels: Int64[Tensor, "examples"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise UserError("the images of an ImageSet must be a uint8 tensor [N, C, H, W]")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise UserError("the labels of an ImageSet must be an int64 tensor [N], one for every image")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise UserError(f"the labels of an ImageSet must lie in 0..{len(self.classes) - 1}, one per class name")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: Int64[Tensor, "chosen"]) -> "ImageSet":
        """The images at these positions, in this order, with the same classes."""
        return ImageSet(self.images[index], self.labels[index], self.classes)


def check_labels(path: Path, labels: Int64[np.ndarray, "rows"], classes: tuple[str, ...]) -> None:
    """Raises UserError naming the first row of the file whose label is no class."""
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(f"{path} row {row}: the label {labels[row]} is outside of 0..{len(classes) - 1}")
