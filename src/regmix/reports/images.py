"""Example images as data URIs."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from regmix.reports.load import Examples

SHOWN = 8


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of an image [C, H, W] with one (grey) or three (RGB) channels.

    Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025.
    """
    channels, height, width = pixels.shape
    assert channels in (1, 3), "PNG wants grey or RGB"
    rows = pixels.transpose(1, 2, 0).reshape(height, -1)
    scanlines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(scanlines.tobytes(), 9)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """An image [C, H, W] as a data URI for an <img>."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def magnification(examples: Examples) -> int:
    """The largest whole factor that keeps all perturbations of these examples in [-0.5, 0.5]; at least 1."""
    longest = float(np.abs(examples.delta).max(initial=0.0))
    return max(1, int(0.5 / longest + 1e-3)) if longest > 0 else 1


def triples(examples: Examples) -> list[tuple[str, str, str]]:
    """Data URIs of clean image, magnified perturbation and adversarial image, for the first SHOWN examples.

    Mid-grey in a perturbation means no change. Empty for images that are neither grey nor RGB.
    """
    if examples.x.shape[1] not in (1, 3):
        return []
    factor = magnification(examples)
    clean = examples.x[:SHOWN].astype(np.float64) / 255
    delta = examples.delta[:SHOWN].astype(np.float64)
    stages = [clean, 0.5 + factor * delta, clean + delta]
    pixels = [np.rint(stage.clip(0, 1) * 255).astype(np.uint8) for stage in stages]
    return [(data_uri(x), data_uri(d), data_uri(a)) for x, d, a in zip(*pixels, strict=True)]
