"""A set of images is recognised, and what has changed in it is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.data import Digits, Folder, ImageSet, changes, class_changes, fingerprint, load


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load(Digits(), "test")


def other(held: ImageSet, **values: Any) -> ImageSet:
    return replace(held, **values)


def test_the_same_images_are_recognised_and_counted(digits: ImageSet) -> None:
    seen = fingerprint(digits)
    assert seen == fingerprint(other(digits, images=digits.images.clone()))
    assert seen.images == len(digits) == sum(seen.counts)
    assert list(seen.counts) == torch.bincount(digits.labels).tolist()


def test_a_changed_pixel_label_or_order_is_noticed(digits: ImageSet) -> None:
    seen = fingerprint(digits)
    pixels = digits.images.clone()
    pixels[7, 0, 3, 3] ^= 1
    assert "replaced, changed" in changes(seen, fingerprint(other(digits, images=pixels)))
    turned = digits.subset(torch.arange(len(digits)).flip(0))
    assert "reordered" in changes(seen, fingerprint(turned))
    labels = digits.labels.clone()
    labels[0] = (labels[0] + 1) % 10
    assert "images instead of" in changes(seen, fingerprint(other(digits, labels=labels)))
    assert changes(seen, seen) == ""


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        (("ant", "bee"), ("ant", "bee"), ""),
        (("ant", "bee"), ("bee", "wasp"), "ant is gone, wasp is new"),
        (("ant", "bee"), ("bee", "ant"), "their order has changed: class 0 was ant and is now bee"),
        (("ant", "bee"), ("ant", "bee", "cow"), "cow is new"),
        (("a", "b", "c", "d", "e"), ("a",), "b, c, d and 1 more are gone"),
    ],
)
def test_classes_are_compared_by_name_and_order(before: tuple[str, ...], now: tuple[str, ...], text: str) -> None:
    assert class_changes(before, now) == text


def test_streamed_images_are_known_by_their_files(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    streamed, held = (Folder(root=str(tmp_path), size=8, stream=stream) for stream in (True, False))
    seen = fingerprint(streamed.read("test"))
    assert (seen.kind, fingerprint(held.read("test")).kind) == ("files", "pixels")
    assert changes(seen, fingerprint(held.read("test"))) == "", "the same classes and numbers, stored in another way"
    file = tmp_path / "test" / "bee" / "1.png"
    content = file.read_bytes()
    file.write_bytes(content)
    again = fingerprint(streamed.read("test"))
    assert again.digest == seen.digest
    assert again.times != seen.times
    file.write_bytes(content + b"\0")
    assert "replaced" in changes(seen, fingerprint(streamed.read("test")))
    file.rename(file.with_name("x.png"))
    assert "replaced" in changes(seen, fingerprint(streamed.read("test")))
