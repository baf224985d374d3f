"""The corruptions of CIFAR-10-C that need no program outside Python, and the reader of its official files."""

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
from regmix.types import UserError

__all__ = ["COMMON", "EXTRA", "NAMES", "SEVERITIES", "Computed", "OfficialFiles"]

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
"""Twelve of the benchmark's fifteen."""
EXTRA: dict[str, Corruption] = {
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "saturate": saturate,
}
"""Three of its four extra ones."""
OFFICIAL_ONLY = ("motion_blur", "snow", "frost", "spatter")
"""Made with ImageMagick, photographs or OpenCV: only from the official files."""
CHUNK = 1000


@dataclass(frozen=True)
class Computed:
    """Corruptions made here.

    The severities are those of the public code for 32 x 32 images (arXiv 1903.12261, make_cifar_c.py); blurs are in
    pixels whatever the size, elastic_transform in shares of the width. As there, values are rounded down to whole grey
    levels. The draws are the same for every call with the same seed; they are not those of the official files.
    """

    seed: int = 0

    def names(self) -> list[str]:
        """Those over which a mean is taken."""
        return list(COMMON)

    def images(self, name: str, severity: int, images: Pictures, labels: Labels) -> Pictures:
        """The images under a corruption, severity 1 (weak) to 5 (strong).

        Raises:
            UserError: an unknown name or severity, or images that are not in colour.
        """
        known = COMMON | EXTRA
        if name in OFFICIAL_ONLY:
            raise UserError(f"{name} cannot be computed; --corruption-files reads the official files")
        if name not in known:
            raise UserError(f"the corruption {name!r} is unknown; known are {', '.join((*known, *OFFICIAL_ONLY))}")
        check_severity(severity)
        if images.shape[1] != 3:
            raise UserError(f"corruptions are made for colour images; these have {images.shape[1]} channel(s)")
        parts = []
        for number, chunk in enumerate(torch.split(images, CHUNK)):
            rng = np.random.default_rng([self.seed, zlib.crc32(name.encode()), severity, number])
            bad = known[name](chunk.numpy().astype(np.float64) / 255, severity, rng)
            # a value that floating point puts just below a grey level is meant to be that level
            levels = np.floor(255 * np.clip(bad, 0, 1) + 1e-6)
            parts.append(torch.from_numpy(levels.astype(np.uint8)))
        return torch.cat(parts)
