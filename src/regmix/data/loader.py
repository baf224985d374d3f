"""Batches of images: shuffled and augmented on the device for training, in order for evaluation."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from regmix.data.augment import draw_views, take
from regmix.data.images import ImageSet
from regmix.data.stored import WINDOW, Stored
from regmix.types import Batch, Images, UserError, View

Dealt = tuple[Tensor, View | None, float]
"""Positions in the image set, views and weight of a batch."""


def _memory_format(images: Tensor) -> torch.memory_format:
    # With one channel the two formats are the same bytes, and torch would guess which one is meant.
    return torch.channels_last if images.shape[1] > 1 else torch.contiguous_format


def _padded(images: Tensor, pad: int) -> Tensor:
    return F.pad(images, (pad,) * 4).contiguous(memory_format=_memory_format(images))


def _to_float(images: UInt8[Tensor, "batch channels height width"]) -> Images:
    return images.to(torch.float32, memory_format=_memory_format(images)) / 255


class Loader:
    """Epochs of shuffled, cropped and mirrored batches.

    Images in memory lie padded, as uint8, on the device; those that are decoded when they are looked at are decoded by
    as many threads as there are cores, a few batches ahead. Order and views of a pass over the images depend on `seed`
    (>= 0) and its number alone, whatever the device. `pad` is in pixels on every side. With `replays` = m every batch
    comes m times in a row, and a pass takes m epochs of the usual length. Of `size` processes each gets its share of
    every batch, in the order of their ranks.

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
        self._images: Tensor | Stored = images.images
        self._groups: Tensor | None = None
        if isinstance(images.images, Stored):
            self._groups = images.images.groups()
        else:
            self._images = _padded(images.images.to(device), pad)
        self._labels = images.labels.to(device)
        self._batch_size, self._pad, self._flip, self._seed = batch_size, pad, flip, seed
        self._replays, self._rank, self._size = replays, rank, size

    def __len__(self) -> int:
        """The number of batches of an epoch: ceil(N / batch_size), but no more than give every process an example."""
        return steps_per_epoch(len(self._labels), self._batch_size, self._size)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (number >= 0), each example once, from the `first` on.

        The sizes of the batches differ by one at most, for a tiny last batch would upset BatchNorm.
        x: float32 in [0, 1], channels_last if C > 1. index: positions in the image set. view: None if nothing
        is augmented. Raises UserError naming an image that cannot be decoded.
        """
        steps = range(number * len(self) + first, (number + 1) * len(self))
        if isinstance(self._images, Stored):
            yield from self._decoded(self._images, steps)
            return
        for index, view, weight in self._plan(steps):
            yield self._batch(index, self._images, index, view, weight)

    def _decoded(self, images: Stored, steps: Iterable[int]) -> Iterator[Batch]:
        """The batches of these steps, of images that other threads decode meanwhile."""
        workers = os.cpu_count() or 1
        depth = max(2, min(2 * workers, WINDOW // self._batch_size))
        pool = ThreadPoolExecutor(workers, "regmix-decode")
        plan = self._plan(steps)
        ahead: deque[tuple[Dealt, Future[Tensor]]] = deque()

        def look_ahead() -> None:
            for dealt in islice(plan, 1):
                again = ahead and ahead[-1][0] is dealt
                pixels = ahead[-1][1] if again else pool.submit(self._host_pixels, images, dealt[0])
                ahead.append((dealt, pixels))

        try:
            for _ in range(depth):
                look_ahead()
            while ahead:
                batch = self._from_host(*ahead.popleft())
                look_ahead()
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _host_pixels(self, images: Stored, index: Tensor) -> Tensor:
        pixels = images[index]
        return pixels.pin_memory() if self._labels.is_cuda else pixels

    def _from_host(self, dealt: Dealt, pixels: Future[Tensor]) -> Batch:
        index, view, weight = dealt
        shown = _padded(pixels.result().to(self._labels.device, non_blocking=True), self._pad)
        return self._batch(index, shown, torch.arange(len(shown), device=shown.device), view, weight)

    def _batch(self, index: Tensor, padded: Tensor, place: Tensor, view: View | None, weight: float) -> Batch:
        """The images at `place` of those that are padded, which are those at `index` of the set."""
        shown = padded[place] if view is None else take(padded, place, view, self._pad)
        index = index.to(self._labels.device, non_blocking=True)
        return Batch(_to_float(shown), self._labels[index], index, view, weight)

    def _plan(self, steps: Iterable[int]) -> Iterator[Dealt]:
        """This process's share of the batches of some steps, counted from the first epoch's first; the same object
        where a batch is replayed."""
        in_pass, in_batch = -1, -1
        places = torch.arange(len(self._labels)).tensor_split(len(self))
        for step in steps:
            if step // self._replays != in_batch:
                in_batch = step // self._replays
                current, number = divmod(in_batch, len(self))
                if current != in_pass:
                    order, views = self._deal(current)
                    in_pass = current
                whole = places[number]
                place = whole.tensor_split(self._size)[self._rank]
                here = slice(int(place[0]), int(place[-1]) + 1)
                view = View(*(part[here] for part in views)) if self._pad or self._flip else None
                dealt = order[here], view, len(place) * self._size / len(whole)
            yield dealt

    def _deal(self, number: int) -> tuple[Tensor, View]:
        """The order of the images in a pass, and the view of each, in that order.

        Images that are read in groups are shuffled within a window of their groups, which are shuffled themselves.
        """
        n, device = len(self._labels), self._labels.device
        # Drawn on the host, where the stream is the same for every device, and moved once.
        state = np.random.SeedSequence((self._seed, number)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        order = torch.randperm(n, generator=generator)
        views = draw_views(n, self._pad, self._flip, generator)
        if self._groups is not None and n > WINDOW:
            turn = torch.randperm(int(self._groups.max()) + 1, generator=generator)[self._groups[order]]
            order = order[turn.argsort(stable=True)]
            place = torch.arange(n) + WINDOW * torch.rand(n, generator=generator, dtype=torch.float64)
            order = order[place.argsort()]
        kept = order if isinstance(self._images, Stored) else order.to(device)
        return kept, View(*(part.to(device) for part in views))


def steps_per_epoch(count: int, batch_size: int, size: int) -> int:
    """Into how many batches `count` images are dealt that `size` processes share."""
    return max(1, min(-(-count // batch_size), count // size))


def batches(images: ImageSet, batch_size: int, device: torch.device | str) -> Iterator[Batch]:
    """The images in order, as they are, for evaluation; they stay where they are and only the batch moves.

    x: float32 in [0, 1], channels_last if C > 1. Raises UserError for a batch size below one.
    """
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    for first in range(0, len(images), batch_size):
        yield pick(images, torch.arange(first, min(first + batch_size, len(images))), device)


def pick(images: ImageSet, index: Int64[Tensor, "chosen"], device: torch.device | str) -> Batch:
    """The images at these positions, as they are; the others stay where they are."""
    x = _to_float(images.images[index].to(device))
    return Batch(x, images.labels[index].to(device), index.to(device))
