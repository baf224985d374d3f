"""Images that are not held in memory: they are decoded whenever they are looked at."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from regmix.data.decode import Encoded, decode, decode_and_tell
from regmix.types import UserError

WINDOW = 4096
"""Images among which a pass is shuffled where they are read in groups: so many are in reach at a time."""


class Identity(NamedTuple):
    """What tells, without decoding an image, whether it is still the same."""

    name: str
    """Its file relative to the root of the data, with / between folders, and the row where a file holds several."""
    size: int
    """Of the file, in bytes."""
    version: str
    """When the file was last modified, in nanoseconds, or the hash of its content that the hub gives; else empty."""

    @staticmethod
    def of(path: Path, root: Path) -> "Identity":
        """Of a file below a root. Raises UserError if it is gone."""
        try:
            found = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        return Identity(path.relative_to(root).as_posix(), found.st_size, str(found.st_mtime_ns))


class Source(Protocol):
    """Encoded images by their number, readable from several threads at once."""

    @property
    def starts(self) -> Sequence[int] | None:
        """Where the groups begin that are read as a whole; None: every image is read alone."""
        ...

    def __len__(self) -> int: ...

    def encoded(self, number: int) -> Encoded:
        """One image. Raises UserError naming what cannot be read."""
        ...

    def only(self, numbers: Int64[Tensor, "chosen"]) -> "Source":
        """The same images by the same numbers, of which no others will be asked for."""
        ...

    def identity(self, numbers: Int64[Tensor, "chosen"]) -> list[Identity]:
        """Of each of these images, without decoding one. Raises UserError naming a file that is gone."""
        ...


@dataclass(frozen=True)
class Files:
    """Images that are files of their own."""

    files: Sequence[Path]
    root: Path
    """Folder that holds them all, however deep."""
    starts: None = None

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, number: int) -> Encoded:
        """The image at this place of the list."""
        path = self.files[number]
        return Encoded(str(path), path)

    def only(self, numbers: Int64[Tensor, "chosen"]) -> "Files":
        """The same files."""
        return self

    def identity(self, numbers: Int64[Tensor, "chosen"]) -> list[Identity]:
        """Name, size and time of the files at these places of the list."""
        return [Identity.of(self.files[number], self.root) for number in numbers.tolist()]


@dataclass(frozen=True, eq=False)
class Stored:
    """Some images of a source, in the manner of the uint8 tensor [N, C, H, W] that they would be in memory."""

    source: Source
    numbers: Int64[Tensor, "examples"]
    size: int | None
    """What `decode` resizes them to."""
    shape: tuple[int, int, int, int]

    @staticmethod
    def of(source: Source, size: int | None) -> "Stored":
        """All images of a source, which must not be empty; without a `size` the first tells the others' size."""
        if not len(source):
            raise UserError("there are no images to decode")
        height, width = (size, size) if size is not None else decode(source.encoded(0), None).shape[:2]
        return Stored(source, torch.arange(len(source)), size, (len(source), 3, height, width))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Int64[Tensor, "chosen"]) -> UInt8[Tensor, "chosen channels height width"]:
        """The pixels of the images at these places. Raises UserError naming an image that cannot be decoded."""
        return self._decode(index)[0]

    def _decode(self, index: Int64[Tensor, "chosen"]) -> tuple[UInt8[Tensor, "chosen channels height width"], int, int]:
        """Their pixels, how many of them were turned, and of how many the EXIF data is damaged."""
        pixels = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
        turned = unread = 0
        for place, number in enumerate(self.numbers[index.cpu()].tolist()):
            image = decode_and_tell(self.source.encoded(number), self.size, self.shape[2:])
            pixels[place] = image.pixels.transpose(2, 0, 1)
            turned, unread = turned + image.turned, unread + image.unread
        return torch.from_numpy(pixels), turned, unread

    def at(self, index: Int64[Tensor, "chosen"]) -> "Stored":
        """The images at these places, not decoded yet."""
        numbers = self.numbers[index.cpu()]
        return Stored(self.source.only(numbers), numbers, self.size, (len(index), *self.shape[1:]))

    def identity(self) -> list[Identity]:
        """Of each image, in order, without decoding one. Raises UserError naming a file that is gone."""
        return self.source.identity(self.numbers)

    def resident(self) -> UInt8[Tensor, "examples channels height width"]:
        """All of them, decoded into memory by as many threads as there are cores."""
        return self.resident_and_notes()[0]

    def resident_and_notes(self) -> tuple[UInt8[Tensor, "examples channels height width"], tuple[str, ...]]:
        """All of them as `resident`, and a line each for what was done about their orientation."""
        pixels = torch.empty(self.shape, dtype=torch.uint8)

        def fill(part: Tensor) -> tuple[int, int]:
            pixels[part], turned, unread = self._decode(part)
            return turned, unread

        # Pillow lets go of the interpreter while it decodes, so threads are enough.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = [*pool.map(fill, torch.split(torch.arange(len(self)), 256))]
        turned, unread = (sum(count) for count in zip(*counts, strict=True))
        notes = []
        if turned:
            notes.append(f"{turned} of {len(self)} images were turned upright, as their EXIF orientation says")
        if unread:
            notes.append(f"{unread} of {len(self)} images have damaged EXIF data: they may lie on their side")
        return pixels, tuple(notes)

    def groups(self) -> Int64[Tensor, "examples"] | None:
        """The group that each image is read with; None: every image is read alone."""
        if self.source.starts is None:
            return None
        return torch.bucketize(self.numbers, torch.tensor(self.source.starts), right=True) - 1
