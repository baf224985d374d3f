"""Images that are not held in memory but decoded on every access."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from regmix.data.decode import Encoded, decode, decode_and_tell
from regmix.data.size import Channels, Size, height_and_width
from regmix.types import UserError, few

WINDOW = 4096
"""How many images are shuffled among each other, where images are read in groups."""
TOLD = {
    "turned": "were turned upright, as their EXIF orientation says",
    "unread": "have damaged EXIF data: they may be rotated",
    "transparent": "have transparent pixels, which get the colours stored beneath, often black; "
    "if that hides what they show, save them without transparency",
}
"""What is told about images, by the field of `Decoded` that says so."""


class Identity(NamedTuple):
    """Shows whether an image is still the same, without decoding it."""

    name: str
    """The file relative to the root of the data, with / between folders, and the row if the file holds several."""
    size: int
    """Size of the file in bytes."""
    version: str
    """The time of the file's last change in nanoseconds, or the hub's hash of its content; else empty."""

    @staticmethod
    def of(path: Path, root: Path) -> "Identity":
        """The identity of a file below a root. Raises UserError if the file is gone."""
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        return Identity(path.relative_to(root).as_posix(), status.st_size, str(status.st_mtime_ns))


class Source(Protocol):
    """Encoded images by number. Several threads may read at once."""

    @property
    def starts(self) -> Sequence[int] | None:
        """The number of the first image of each group that is read as a whole; None if images are read one by one."""
        ...

    def __len__(self) -> int: ...

    def encoded(self, number: int) -> Encoded:
        """One image. Raises UserError naming what cannot be read."""
        ...

    def only(self, numbers: Int64[Tensor, "chosen"]) -> "Source":
        """The same source, of which only these numbers will be read, so that it need not keep other images."""
        ...

    def identity(self, numbers: Int64[Tensor, "chosen"]) -> list[Identity]:
        """The identity of each of these images. Raises UserError naming a file that is gone."""
        ...


@dataclass(frozen=True)
class Files:
    """Images in separate files."""

    files: Sequence[Path]
    root: Path
    """Folder that holds all of them, at any depth."""
    starts: None = None

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, number: int) -> Encoded:
        """The image in this file of the list."""
        path = self.files[number]
        return Encoded(str(path), path)

    def only(self, numbers: Int64[Tensor, "chosen"]) -> "Files":
        """The same files."""
        return self

    def identity(self, numbers: Int64[Tensor, "chosen"]) -> list[Identity]:
        """Name, size and time of these files of the list."""
        return [Identity.of(self.files[number], self.root) for number in numbers.tolist()]


@dataclass(frozen=True, eq=False)
class Stored:
    """Some images of a source, with len, shape and indexing as of a uint8 tensor [N, C, H, W]."""

    source: Source
    numbers: Int64[Tensor, "examples"]
    """The numbers of the images in the source."""
    size: Size | None
    """The size that `decode` resizes them to."""
    shape: tuple[int, int, int, int]
    channels: Channels = "rgb"

    @staticmethod
    def of(source: Source, size: Size | None, channels: Channels = "rgb") -> "Stored":
        """All images of a source, which must not be empty. Without a `size` all must have that of the first."""
        if not len(source):
            raise UserError("there are no images to decode")
        height, width = height_and_width(size) if size is not None else decode(source.encoded(0), None).shape[:2]
        shape = len(source), 1 if channels == "grey" else 3, height, width
        return Stored(source, torch.arange(len(source)), size, shape, channels)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Int64[Tensor, "chosen"]) -> UInt8[Tensor, "chosen channels height width"]:
        """The pixels of the images at these positions. Raises UserError naming an image that cannot be decoded."""
        return self._decode(index)[0]

    def _decode(
        self, index: Int64[Tensor, "chosen"]
    ) -> tuple[UInt8[Tensor, "chosen channels height width"], list[int]]:
        """Their pixels, and of how many images each of TOLD is true."""
        pixels = np.empty((len(index), *self.shape[1:]), dtype=np.uint8)
        counts = [0] * len(TOLD)
        for row, number in enumerate(self.numbers[index.cpu()].tolist()):
            image = decode_and_tell(self.source.encoded(number), self.size, self.shape[2:], self.channels)
            pixels[row] = image.pixels.transpose(2, 0, 1)
            for place, name in enumerate(TOLD):
                counts[place] += getattr(image, name)
        return torch.from_numpy(pixels), counts

    def _broken(self, index: Int64[Tensor, "chosen"]) -> Iterator[tuple[str, str]]:
        """The names of the images that cannot be decoded, and why."""
        for number in self.numbers[index].tolist():
            encoded = self.source.encoded(number)
            try:
                decode_and_tell(encoded, self.size, self.shape[2:], self.channels)
            except UserError as error:
                yield encoded.name, str(error)

    def at(self, index: Int64[Tensor, "chosen"]) -> "Stored":
        """The images at these positions, not decoded yet."""
        numbers = self.numbers[index.cpu()]
        return Stored(self.source.only(numbers), numbers, self.size, (len(index), *self.shape[1:]), self.channels)

    def identity(self) -> list[Identity]:
        """The identity of each image, in order. Raises UserError naming a file that is gone."""
        return self.source.identity(self.numbers)

    def resident(self) -> UInt8[Tensor, "examples channels height width"]:
        """Decodes all images into memory, with one thread per core."""
        return self.resident_and_notes()[0]

    def resident_and_notes(self) -> tuple[UInt8[Tensor, "examples channels height width"], tuple[str, ...]]:
        """Like `resident`, and lines for the user about the images.

        Raises:
            UserError: images that cannot be decoded; the message names all of them, or the first four.
        """
        pixels = torch.empty(self.shape, dtype=torch.uint8)

        broken: dict[str, str] = {}

        def fill(part: Tensor) -> list[int]:
            try:
                pixels[part], counts = self._decode(part)
            except UserError:
                faults = dict(self._broken(part))
                if not faults:  # a fault that does not come again, such as of a network disk
                    raise
                broken.update(faults)
                return [0] * len(TOLD)
            return counts

        # Threads suffice, because Pillow releases the interpreter lock while it decodes.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = [*pool.map(fill, torch.split(torch.arange(len(self)), 256))]
        if broken:
            first, *others = sorted(broken)
            raise UserError(broken[first] + few("; the same or other faults have", others))
        totals = [sum(count) for count in zip(*counts, strict=True)]
        texts = zip(totals, TOLD.values(), strict=True)
        return pixels, tuple(f"{count} of {len(self)} images {text}" for count, text in texts if count)

    def groups(self) -> Int64[Tensor, "examples"] | None:
        """The group that each image is read with; None if images are read one by one."""
        if self.source.starts is None:
            return None
        return torch.bucketize(self.numbers, torch.tensor(self.source.starts), right=True) - 1
