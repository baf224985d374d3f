"""Batches of images: shuffled and augmented on the device for training, in order for evaluation."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from regmix.data.augment import draw_views, take
from regmix.data.images import ImageSet
from regmix.types import Batch, Images, UserError, View


def _memory_format(images: Tensor) -> torch.memory_format:
    # With one channel the two formats are the same bytes, and torch would guess which one is meant.
    return torch.channels_last if images.shape[1] > 1 else torch.contiguous_format


def _to_float(images: UInt8[Tensor, "batch channels height width"]) -> Images:
    return images.to(torch.float32, memory_format=_memory_format(images)) / 255


class Loader:
    """Epochs of shuffled, cropped and mirrored batches of images that lie padded, as uint8, on the device.

    Order and views of a pass over the images depend on `seed` (>= 0) and its number alone, whatever the device. `pad`
    is in pixels on every side. With `replays` = m every batch comes m times in a row, and a pass takes m epochs of the
    usual length. Of `size` processes each gets its share of every batch, in the order of their ranks.

    Raises UserError for an empty set, a batch size below one or `size`, or a negative pad.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        device: torch.device | str,
        *,
        pad: int,
        flip: bool,
        seed: int,
        replays: int = 1,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        if not len(images):
            raise UserError("there are no images to train on")
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if min(batch_size, len(images)) < size:
            raise UserError(f"batches of {min(batch_size, len(images))} images cannot be shared by {size} processes")
        if pad < 0:
            raise UserError(f"the padding must not be negative: {pad}")
        padded = F.pad(images.images.to(device), (pad,) * 4)
        self._padded = padded.contiguous(memory_format=_memory_format(padded))
        self._labels = images.labels.to(device)
        self._batch_size, self._pad, self._flip, self._seed = batch_size, pad, flip, seed
        self._replays, self._rank, self._size = replays, rank, size

    def __len__(self) -> int:
        """The number of batches of an epoch: ceil(N / batch_size), but no more than give every process an example."""
        count = len(self._labels)
        return max(1, min(-(-count // self._batch_size), count // self._size))

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch (number >= 0), each example once.

        The sizes of the batches differ by one at most, for a tiny last batch would upset BatchNorm.
        x: float32 in [0, 1], channels_last if C > 1. index: positions in the image set. view: None if nothing
        is augmented.
        """
        last, places = -1, torch.arange(len(self._labels), device=self._labels.device).tensor_split(len(self))
        for step in range(number * len(self), (number + 1) * len(self)):
            current, number_in_pass = divmod(step // self._replays, len(self))
            if current != last:
                order, views = self._deal(current)
                last = current
            whole = places[number_in_pass]
            place = whole.tensor_split(self._size)[self._rank]
            index, view = order[place], None
            if self._pad or self._flip:
                view = View(*(part[place] for part in views))
                shown = take(self._padded, index, view, self._pad)
            else:
                shown = self._padded[index]
            weight = len(place) * self._size / len(whole)
            yield Batch(_to_float(shown), self._labels[index], index, view, weight)

    def _deal(self, number: int) -> tuple[Tensor, View]:
        """The order of the images in a pass, and the view of each, in that order."""
        n, device = len(self._labels), self._labels.device
        # Drawn on the host, where the stream is the same for every device, and moved once.
        state = np.random.SeedSequence((self._seed, number)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        order = torch.randperm(n, generator=generator).to(device)
        views = draw_views(n, self._pad, self._flip, generator)
        return order, View(*(part.to(device) for part in views))


def batches(images: ImageSet, batch_size: int, device: torch.device | str) -> Iterator[Batch]:
    """The images in order, as they are, for evaluation; they stay on the host and only the batch moves.

    x: float32 in [0, 1], channels_last if C > 1. Raises UserError for a batch size below one.
    """
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    for first in range(0, len(images), batch_size):
        yield pick(images, torch.arange(first, min(first + batch_size, len(images))), device)


def pick(images: ImageSet, index: Int64[Tensor, "chosen"], device: torch.device | str) -> Batch:
    """The images at these positions, as they are; the others stay on the host."""
    x = _to_float(images.images[index].to(device))
    return Batch(x, images.labels[index].to(device), index.to(device))
