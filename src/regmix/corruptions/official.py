"""The official files of CIFAR-10-C and CIFAR-100-C."""

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
"""The benchmark's fifteen, over which its mean is taken."""


def check_severity(severity: int) -> None:
    """Raises UserError unless it is 1 to 5."""
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity}: it must be 1, 2, 3, 4 or 5")


@dataclass(frozen=True)
class OfficialFiles:
    """A folder with CIFAR-10-C's or CIFAR-100-C's files: NAME.npy with the test set at five severities, labels.npy."""

    folder: Path
    positions: Int64[Tensor, "chosen"] | None = None
    """Which images of the test set are asked for, in increasing order; None means the first."""

    def names(self) -> list[str]:
        """The corruptions of the benchmark whose files are there.

        Raises:
            UserError: none is.
        """
        there = [name for name in NAMES if (self.folder / f"{name}.npy").exists()]
        if not there:
            raise UserError(f"{self.folder} has no file of CIFAR-10-C such as {NAMES[0]}.npy")
        return there

    def images(self, name: str, severity: int, images: Pictures, labels: Labels) -> Pictures:
        """What the files have for the images at `positions` of the test set, whose labels must be theirs.

        Raises:
            UserError: an unknown severity, or a file is missing, of another form, or of another test set.
        """
        check_severity(severity)
        every = self._open(name)
        path = self.folder / f"{name}.npy"
        if every.dtype != np.uint8 or every.ndim != 4 or every.shape[3] != 3 or len(every) % len(SEVERITIES):
            raise UserError(f"{path} is {every.dtype} {every.shape}, not uint8 (5 N, height, width, 3)")
        count = len(every) // len(SEVERITIES)
        places = np.arange(len(labels)) if self.positions is None else self.positions[: len(labels)].numpy()
        if places[-1] >= count:
            raise UserError(
                f"{path} has {count} images per severity; image {places[-1] + 1} of the test set was asked for"
            )
        places = (severity - 1) * count + places
        theirs = self._open("labels")
        if theirs.shape != every.shape[:1] or (theirs[places] != labels.numpy()).any():
            raise UserError(f"{self.folder / 'labels.npy'} has other labels than the test split")
        chosen = np.ascontiguousarray(every[places].transpose(0, 3, 1, 2))
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
