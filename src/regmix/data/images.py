"""A labelled set of images: what every data source returns."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from regmix.data.stored import Stored
from regmix.types import UserError

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 [N, C, H, W], labels int64 [N] in [0, len(classes)), and the names of the classes.

    The images are in memory, or decoded on access; both kinds have len, shape and indexing.

    Raises:
        UserError: not uint8 [N, C, H, W], not one int64 label per image, or a label without a class.
    """

    images: UInt8[Tensor, "examples channels height width"] | Stored
    labels: Int64[Tensor, "examples"]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Lines for the user about files that were skipped or images that were changed."""
    files: tuple[str, ...] | None = None
    """The file of each image, relative to the folder of the data; None where images are not in files of their own."""

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and (self.images.ndim != 4 or self.images.dtype != torch.uint8):
            raise UserError("the images of an ImageSet must be a uint8 tensor [N, C, H, W]")
        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            raise UserError("the labels of an ImageSet must be an int64 tensor [N], one for every image")
        assert self.files is None or len(self.files) == len(self), "a file for every image"
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise UserError(f"the labels of an ImageSet must lie in 0..{len(self.classes) - 1}, one per class name")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def subset(self, index: Int64[Tensor, "chosen"]) -> "ImageSet":
        """The images at these positions, in this order, with the same classes."""
        chosen = self.images.at(index) if isinstance(self.images, Stored) else self.images[index]
        files = None if self.files is None else tuple(self.files[number] for number in index.tolist())
        return ImageSet(chosen, self.labels[index], self.classes, self.notes, files)

    def resident(self) -> "ImageSet":
        """The same images in memory."""
        if not isinstance(self.images, Stored):
            return self
        pixels, notes = self.images.resident_and_notes()
        return replace(self, images=pixels, notes=(*self.notes, *notes))

    def mean_and_deviation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in [0, 1].

        Computed over all images in memory, or over about 10,000 evenly spaced ones where images are decoded on access.
        """
        step = -(-len(self) // 10_000) if isinstance(self.images, Stored) else 1
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for part in torch.split(torch.arange(0, len(self), step), 1000):
            values = self.subset(part).pixels().transpose(0, 1).flatten(1).double() / 255
            count += values.shape[1]
            total, squares = total + values.sum(1), squares + values.square().sum(1)
        mean = total / count
        return mean.tolist(), ((squares - count * mean.square()) / (count - 1)).clamp(min=0).sqrt().tolist()

    def pixels(self) -> UInt8[Tensor, "examples channels height width"]:
        """All images as one tensor."""
        return self.images.resident() if isinstance(self.images, Stored) else self.images


def check_labels(path: Path | str, labels: Int64[np.ndarray, "rows"], classes: tuple[str, ...], first: int = 0) -> None:
    """Raises UserError naming the first row of the file whose label is out of range; `first` is that of class 0."""
    last = first + len(classes) - 1
    wrong = np.flatnonzero((labels < first) | (labels > last))
    if len(wrong):
        row = int(wrong[0])
        raise UserError(f"{path} row {row}: the label {labels[row]} is outside of {first}..{last}")
