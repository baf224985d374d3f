"""Fingerprints of image sets: recognises whether the images are still the same, and describes the difference."""

import hashlib
from itertools import zip_longest

import torch
from torch import Tensor

from regmix.data.images import ImageSet
from regmix.types import Fingerprint, few

DIGITS = 32


def fingerprint(images: ImageSet) -> Fingerprint:
    """The classes, the number of images per class, and a digest of pixels and labels in their order.

    For images that are decoded on access, the digest is of names and sizes of files instead of pixels.
    """
    counts = torch.bincount(images.labels, minlength=len(images.classes))
    content = hashlib.sha256(repr((images.classes, tuple(images.images.shape))).encode())
    content.update(images.labels.contiguous().numpy().tobytes())
    times = hashlib.sha256()
    if isinstance(images.images, Tensor):
        for part in torch.split(images.images, 1000):
            content.update(part.contiguous().numpy().data)
    else:
        for name, size, version in images.images.identity():
            content.update(f"{name}\0{size}\0".encode("utf-8", errors="surrogateescape"))
            times.update(f"{version}\0".encode())
    streamed = not isinstance(images.images, Tensor)
    return Fingerprint(
        images.classes, tuple(counts.tolist()), "files" if streamed else "pixels", content.hexdigest()[:DIGITS],
        times.hexdigest()[:DIGITS] if streamed else "",
    )  # fmt: skip


def class_changes(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """How the ordered classes differ from before, in a clause; empty if they are equal."""
    if before == now:
        return ""
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    parts = [f"{few('', gone)} {'is' if len(gone) == 1 else 'are'} gone"] if gone else []
    parts += [f"{few('', new)} {'is' if len(new) == 1 else 'are'} new"] if new else []
    if not parts:
        label = next(number for number, (a, b) in enumerate(zip_longest(before, now)) if a != b)
        parts = [f"their order has changed: class {label} was {before[label]} and is now {now[label]}"]
    return ", ".join(parts)


def changes(before: Fingerprint, now: Fingerprint) -> str:
    """How the images differ from before, in a clause; empty if they are the same."""
    if text := class_changes(before.classes, now.classes):
        return f"the classes have changed: {text}"
    counts = [
        f"{name} has {count} images instead of {was}"
        for name, was, count in zip(now.classes, before.counts, now.counts, strict=True)
        if was != count
    ]
    if counts:
        return few("", counts)
    if before.kind == now.kind and before.digest != now.digest:
        return "images have been replaced, changed or reordered"
    return ""
