"""Reader of the official files of CIFAR-10-C and CIFAR-100-C."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from regmix.types import UserError

Pictures: TypeAlias = UInt8[Tensor, "examples channels height width"]
Labels: TypeAlias = Int64[Tensor, "examples"]
SEVERITIES = (1, 2, 3, 4, 5)
NAMES = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The benchmark's fifteen corruptions, which its mean is taken over."""


def check_severity(severity: int) -> None:
    """Raises UserError unless the severity is 1, 2, 3, 4 or 5."""
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity}: it must be 1, 2, 3, 4 or 5")


@dataclass(frozen=True)
class OfficialFiles:
    """A folder with the files of CIFAR-10-C or CIFAR-100-C: labels.npy, and NAME.npy for every corruption.

    NAME.npy holds the test set at five severities, one after the other.
    """

    folder: Path
    positions: Int64[Tensor, "chosen"] | None = None
    """Positions of the wanted images in the test set, in increasing order; None means the first ones."""

    def names(self) -> list[str]:
        """The corruptions of the benchmark that have a file.

        Raises:
            UserError: no corruption has one.
        """
        present = [name for name in NAMES if (self.folder / f"{name}.npy").exists()]
        if not present:
            raise UserError(f"{self.folder} has no file of CIFAR-10-C such as {NAMES[0]}.npy; unpack CIFAR-10-C there")
        return present

    def images(self, name: str, severity: int, images: Pictures, labels: Labels) -> Pictures:
        """Reads the corrupted images uint8 [N, 3, H, W] at `positions`; `labels` must be theirs.

        Raises:
            UserError: an unknown severity, or a file is missing, has another format, or is of another test set.
        """
        check_severity(severity)
        values = self._open(name)
        path = self.folder / f"{name}.npy"
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] != 3 or len(values) % len(SEVERITIES):
            raise UserError(
                f"{path} is {values.dtype} {values.shape}, not uint8 (5 N, height, width, 3); fetch CIFAR-10-C again"
            )
        if values.shape[1:3] != images.shape[2:]:
            theirs, ours = ("x".join(map(str, shape)) for shape in (values.shape[1:3], images.shape[2:]))
            raise UserError(
                f"{path} holds images of {theirs} pixels, but the test images have {ours}; read them as such"
            )
        count = len(values) // len(SEVERITIES)
        rows = np.arange(len(labels)) if self.positions is None else self.positions[: len(labels)].numpy()
        if rows[-1] >= count:
            raise UserError(
                f"{path} has {count} images per severity, but image {rows[-1] + 1} of the test set is needed"
            )
        rows = (severity - 1) * count + rows
        file_labels = self._open("labels")
        if file_labels.shape != values.shape[:1] or (file_labels[rows] != labels.numpy()).any():
            raise UserError(
                f"{self.folder / 'labels.npy'} has other labels than the test split; use the files of the same data set"
            )
        chosen = np.ascontiguousarray(values[rows].transpose(0, 3, 1, 2))
        return torch.from_numpy(chosen)

    def _open(self, name: str) -> Shaped[np.ndarray, "..."]:
        path = self.folder / f"{name}.npy"
        try:
            values: Shaped[np.ndarray, "..."] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing") from error
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        return values
