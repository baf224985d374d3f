"""Digital corruptions: pixelation, JPEG compression and elastic deformation."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from regmix.corruptions.base import Pixels
from regmix.data.decode import import_optional


def pixelate(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """Resizes to a share c of the sides and back, with box filters."""
    pillow = import_optional("PIL.Image")
    c = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = x.shape[2:]
    small = (int(width * c), int(height * c))
    return _each(
        x, lambda image: image.resize(small, pillow.Resampling.BOX).resize((width, height), pillow.Resampling.BOX)
    )


def jpeg_compression(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """JPEG compression of quality c."""
    pillow = import_optional("PIL.Image")
    c = (80, 65, 58, 50, 40)[severity - 1]

    def through_jpeg(image: Any) -> Any:
        file = BytesIO()
        image.save(file, "JPEG", quality=c)
        return pillow.open(file)

    return _each(x, through_jpeg)


def _each(x: Pixels, change: Callable[[Any], Any]) -> Pixels:
    """Applies `change`, a function of Pillow images, to every image."""
    pillow = import_optional("PIL.Image")
    levels = np.rint(255 * x).astype(np.uint8).transpose(0, 2, 3, 1)
    changed = np.stack([np.asarray(change(pillow.fromarray(image))) for image in levels])
    return changed.transpose(0, 3, 1, 2) / 255


def elastic_transform(x: Pixels, severity: int, rng: Generator) -> Pixels:
    """A random affine map, followed by a displacement of every pixel by a smooth random field.

    The affine map moves three points by up to c_affine. The field is c_strength * uniform(-1, 1), smoothed by a
    Gaussian of standard deviation c_smooth. All three are relative to the image's shorter side; the public code takes
    one side for both, which are equal there.
    """
    shares = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    strength, smooth, affine = (share * min(x.shape[2:]) for share in shares[severity - 1])
    n, _, height, width = x.shape
    centre, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    # (column, line) of three corners of a square around the centre, before and after the affine map.
    corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-affine, affine, (n, 3, 2))
    ones = np.ones((n, 3, 1))
    back = np.linalg.solve(np.concatenate([moved, ones], 2), np.broadcast_to(corners, (n, 3, 2)).astype(float))
    field = ndimage.gaussian_filter(
        rng.uniform(-1, 1, (2, n, height, width)), smooth, axes=(2, 3), mode="reflect", truncate=3
    )
    right, down = strength * field
    line, column = np.mgrid[:height, :width].astype(float)
    grid = np.stack([column, line, np.ones_like(line)], -1)
    out = np.empty_like(x)
    for image in range(n):
        source = grid @ back[image]
        for channel in range(3):
            bent = ndimage.map_coordinates(x[image, channel], [source[..., 1], source[..., 0]], order=1, mode="mirror")
            places = [line + down[image], column + right[image]]
            out[image, channel] = ndimage.map_coordinates(bent, places, order=1, mode="reflect")
    return out
