"""Reads the two official file formats of CIFAR, of which ImageNet-32 uses one, without running code from them."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from regmix.types import UserError

PIXELS = 3 * 32 * 32
Rows = tuple[UInt8[np.ndarray, "rows 3072"], Int64[np.ndarray, "rows"]]
"""The red, green and blue plane of every image, and the labels."""


class _Dtype:
    """Stands in for the dtype of a pickled array: of pixels, or of the mean image of ImageNet-32, which is not used."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in ("u1", "f8"):
            raise UserError(f"it holds an array of {code!r} where pixels are u1")
        self.dtype = np.dtype(code)

    def __setstate__(self, _: object) -> None:
        pass


class _Array:
    """Stands in for a pickled array, because NumPy's own unpickling trusts its input."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, str | bytes]) -> None:
        _, shape, kind, by_columns, content = state
        raw = content.encode("latin1") if isinstance(content, str) else content
        values = np.frombuffer(raw, dtype=kind.dtype)
        self.values = values.reshape(shape, order="F" if by_columns else "C")


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}
"""The globals that the official pickles need, and their substitutes. Anything else could run code."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UserError(f"it asks for {module}.{name}, which is not data and could run code")
        return ALLOWED[module, name]


def read_python(path: Path, content: bytes, label_key: str) -> Rows:
    """Reads the images and labels of an official Python batch, a pickled dict with `data` and `label_key`.

    Raises:
        UserError: it is damaged, or holds anything but uint8 arrays, containers, numbers and strings.
    """
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        pixels, labels = batch["data"].values, np.asarray(batch[label_key], dtype=np.int64)
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    # A damaged pickle can raise nearly any exception.
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a batch of images ({error!r}); delete it and fetch it again"
        ) from error
    check_batch(path, pixels, labels, label_key)
    return pixels, labels


def check_batch(path: Path, pixels: np.ndarray, labels: np.ndarray, label_key: str) -> None:
    """Raises UserError unless the arrays are uint8 [N, 3072] and [N]."""
    if pixels.dtype != np.uint8 or pixels.shape != (len(pixels), PIXELS) or labels.shape != (len(pixels),):
        raise UserError(f"{path} is no batch of images: it must hold uint8 data [N, {PIXELS}] and N {label_key}")


def read_binary(path: Path, content: bytes, label_bytes: int, rows: int) -> Rows:
    """Reads the images and labels of an official binary batch.

    Each of the `rows` has `label_bytes` label bytes, of which the last is the (fine) label, and then the pixels.

    Raises:
        UserError: the file has the wrong size.
    """
    width = label_bytes + PIXELS
    if len(content) != rows * width:
        raise UserError(f"{path} has {len(content)} bytes instead of {rows} x {width}; delete it and fetch it again")
    table = np.frombuffer(content, dtype=np.uint8).reshape(rows, width)
    return table[:, label_bytes:], table[:, label_bytes - 1].astype(np.int64)
