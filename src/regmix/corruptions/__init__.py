"""Corruptions of CIFAR-10-C that are computed in Python, and a reader of its official files."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from regmix.corruptions.base import Corruption
from regmix.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, zoom_blur
from regmix.corruptions.digital import elastic_transform, jpeg_compression, pixelate
from regmix.corruptions.light import brightness, contrast, fog, saturate
from regmix.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from regmix.corruptions.official import NAMES, SEVERITIES, Labels, OfficialFiles, Pictures, check_severity
from regmix.corruptions.weather import frost, motion_blur, snow
from regmix.types import UserError

__all__ = ["BY_NAME", "COMMON", "EXTRA", "NAMES", "SEVERITIES", "Computed", "OfficialFiles"]

COMMON: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "zoom_blur": zoom_blur,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
"""Twelve of the benchmark's fifteen corruptions."""
EXTRA: dict[str, Corruption] = {
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "saturate": saturate,
}
"""Three of its four extra corruptions."""
BY_NAME: dict[str, Corruption] = {"motion_blur": motion_blur, "snow": snow, "frost": frost}
"""The benchmark's other three. They are computed if asked for by name, so that the mean of all stays what it was."""
OFFICIAL_ONLY = ("spatter",)
"""It needs OpenCV, and is only read from the official files."""
CHUNK = 1000
"""Images that are corrupted at a time, each chunk with its own random stream."""


@dataclass(frozen=True)
class Computed:
    """Corruptions that are computed in Python.

    Source: arXiv 1903.12261 and its public code for 32 x 32 images (make_cifar_c.py), with its severities. Blur radii
    are in pixels for every image size; elastic_transform is relative to the width. As in that code, values are rounded
    down to whole grey levels. Deviations: the random numbers are not those of the official files, they depend on
    `seed`; motion_blur and snow blur in NumPy, not in ImageMagick.
    """

    seed: int = 0
    """Seed of the random numbers; the same seed gives the same images."""

    def names(self) -> list[str]:
        """The corruptions that the mean is taken over."""
        return list(COMMON)

    def images(self, name: str, severity: int, images: Pictures, labels: Labels) -> Pictures:
        """Corrupts images uint8 [N, 3, H, W], with severity 1 (weak) to 5 (strong). `labels` is not used.

        Raises:
            UserError: an unknown name or severity, images that are not RGB, or missing photographs (frost).
        """
        known = COMMON | EXTRA | BY_NAME
        if name in OFFICIAL_ONLY:
            raise UserError(f"{name} cannot be computed; read the official files with --corruption-files")
        if name not in known:
            raise UserError(f"unknown corruption {name!r}; known: {', '.join((*known, *OFFICIAL_ONLY))}")
        check_severity(severity)
        if images.shape[1] != 3:
            raise UserError(f"corruptions are made for colour images; these have {images.shape[1]} channel(s)")
        parts = []
        for number, chunk in enumerate(torch.split(images, CHUNK)):
            rng = np.random.default_rng([self.seed, zlib.crc32(name.encode()), severity, number])
            corrupted = known[name](chunk.numpy().astype(np.float64) / 255, severity, rng)
            # 1e-6 corrects values that a rounding error puts just below a whole grey level.
            levels = np.floor(255 * np.clip(corrupted, 0, 1) + 1e-6)
            parts.append(torch.from_numpy(levels.astype(np.uint8)))
        return torch.cat(parts)
