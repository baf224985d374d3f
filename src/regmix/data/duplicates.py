"""Files of images that are there twice, byte for byte."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from regmix.types import UserError

MEANS = {
    ("test", "training"): "accuracy on them says nothing about new images",
    ("test", "validation"): "where the best weights were chosen on them, their accuracy is too high",
    ("validation", "test"): "the best weights are chosen on test images, whose accuracy is then too high",
    ("validation", "training"): "the best weights are chosen on images that the model has learned",
}
"""What it means that images are in two splits."""


def leak(paths: Sequence[Path], others: Iterable[Path], kind: str, other: str = "training") -> Iterator[str]:
    """A note on images of one kind that are also images of another, byte for byte."""
    sizes = {path.stat().st_size for path in paths}
    same_size = [path for path in others if path.is_file() and path.stat().st_size in sizes]
    by_digest = {_digest(path): path for path in same_size}
    leaked = [path for path in paths if _digest(path) in by_digest] if by_digest else []
    if leaked:
        yield (
            f"{len(leaked)} of {len(paths)} {kind} images are also {other} images, byte for byte, such as {leaked[0]} "
            f"and {by_digest[_digest(leaked[0])]}: {MEANS[kind, other]}"
        )


def copies(paths: Sequence[Path], labels: Sequence[int], *, drawn: bool) -> Iterator[str]:
    """Notes on training images that are there twice, byte for byte.

    drawn: whether validation images are drawn from them.
    """
    beginnings = [_beginning(path) for path in paths]
    often = Counter(beginnings)
    first: dict[bytes, tuple[Path, int]] = {}
    found: list[tuple[Path, Path, bool]] = []
    for path, label, beginning in zip(paths, labels, beginnings, strict=True):
        if often[beginning] > 1:
            other, known = first.setdefault(_digest(path), (path, label))
            if other != path:
                found.append((path, other, known != label))
    if wrong := [(path, other) for path, other, differs in found if differs]:
        yield (
            f"{len(wrong)} training images are in two classes, byte for byte, such as {wrong[0][0]} and {wrong[0][1]}: "
            "one of the labels is wrong"
        )
    if same := [(path, other) for path, other, differs in found if not differs]:
        yield (
            f"{len(same)} of {len(paths)} training images are copies of others, byte for byte, such as {same[0][0]} "
            f"and {same[0][1]}"
            + (": if one of them is drawn for validation, its accuracy says less about new images" if drawn else "")
        )


def _beginning(path: Path) -> tuple[int, bytes]:
    """The size of a file and its first bytes, which tell most files apart without reading them."""
    try:
        with path.open("rb") as file:
            return path.stat().st_size, hashlib.sha256(file.read(4096)).digest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
