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
from regmix.data.augmentations import Augmentations
from regmix.data.balance import Balance, balanced_deck, class_importance
from regmix.data.crops import Noise
from regmix.data.images import ImageSet
from regmix.data.stored import WINDOW, Stored
from regmix.types import Batch, Images, UserError, View

Planned = tuple[Tensor, View | None, float, Noise | None]
"""Positions in the image set, views, weight, and random numbers of the augmentations of a batch."""


NO_AUGMENTATIONS = Augmentations()


def _memory_format(images: Tensor) -> torch.memory_format:
    # With one channel both formats are the same bytes, and torch could take one for the other.
    return torch.channels_last if images.shape[1] > 1 else torch.contiguous_format


def _padded(images: Tensor, pad: int) -> Tensor:
    return F.pad(images, (pad,) * 4).contiguous(memory_format=_memory_format(images))


def _to_float(images: UInt8[Tensor, "batch channels height width"]) -> Images:
    return images.to(torch.float32, memory_format=_memory_format(images)) / 255


class Loader:
    """Epochs of shuffled, cropped and flipped batches for training.

    Images in memory are kept on the device, padded, as uint8. Images decoded on access are decoded a few batches ahead,
    by one thread per core. The order and the views depend only on `seed` and the number of the pass over the images,
    not on the device.

    Args:
        pad: zero padding in pixels on every side, for random crops.
        flip: mirror each image with probability 1/2.
        augmentations: what is done to the images beside.
        balance: makes all classes count equally, by the importance of their images or by how often they come; see
            `balance.py`.
        seed: at least 0.
        replays: how often every batch comes in a row; a pass over the images then takes that many epochs.
        rank: the rank of this process.
        size: the number of processes; each gets its share of every batch.

    Raises:
        UserError: an empty set, a batch size below 1 or `size`, or a negative `pad`.
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
        augmentations: Augmentations = NO_AUGMENTATIONS,
        balance: Balance = "none",
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
        self._augmentations, self._classes = augmentations, len(images.classes)
        self._border, self._shape = augmentations.border(pad), images.shape
        self._images: Tensor | Stored = images.images
        self._groups: Tensor | None = None
        if isinstance(images.images, Stored):
            self._groups = images.images.groups()
        else:
            self._images = _padded(images.images.to(device), self._border)
        self._labels = images.labels.to(device)
        self._batch_size, self._pad, self._flip, self._seed = batch_size, pad, flip, seed
        self._balance, self._importance = balance, None
        if balance == "loss":
            self._importance = class_importance(images.labels, self._classes).to(device)
        self.replays, self._rank, self._size = replays, rank, size

    def __len__(self) -> int:
        """The number of batches per epoch: see `steps_per_epoch`."""
        return steps_per_epoch(len(self._labels), self._batch_size, self._size)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, each example once unless they are sampled; skips the batches before `first`.

        x is float32 in [0, 1], channels_last if C > 1. `index` holds positions in the image set. `view` is None without
        augmentation. Sizes of batches differ by one at most, because a tiny last batch would disturb BatchNorm.

        Raises:
            UserError: an image cannot be decoded; the message names it.
        """
        steps = range(number * len(self) + first, (number + 1) * len(self))
        if isinstance(self._images, Stored):
            yield from self._decoded(self._images, steps)
            return
        for planned in self._plan(steps):
            yield self._batch(planned, self._images, planned[0])

    def _decoded(self, images: Stored, steps: Iterable[int]) -> Iterator[Batch]:
        """The batches of these steps; other threads decode images ahead."""
        workers = os.cpu_count() or 1
        depth = max(2, min(2 * workers, WINDOW // self._batch_size))
        pool = ThreadPoolExecutor(workers, "regmix-decode")
        plan = self._plan(steps)
        ahead: deque[tuple[Planned, Future[Tensor]]] = deque()

        def submit_next() -> None:
            for planned in islice(plan, 1):
                replayed = ahead and ahead[-1][0] is planned
                pixels = ahead[-1][1] if replayed else pool.submit(self._host_pixels, images, planned[0])
                ahead.append((planned, pixels))

        try:
            for _ in range(depth):
                submit_next()
            while ahead:
                batch = self._from_host(*ahead.popleft())
                submit_next()
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _host_pixels(self, images: Stored, index: Tensor) -> Tensor:
        pixels = images[index]
        return pixels.pin_memory() if self._labels.is_cuda else pixels

    def _from_host(self, planned: Planned, pixels: Future[Tensor]) -> Batch:
        shown = _padded(pixels.result().to(self._labels.device, non_blocking=True), self._border)
        return self._batch(planned, shown, torch.arange(len(shown), device=shown.device))

    def _batch(self, planned: Planned, padded: Tensor, rows: Tensor) -> Batch:
        """The planned batch, whose images are in these rows of `padded`."""
        index, view, weight, noise = planned
        shown = padded[rows] if view is None else take(padded, rows, view, self._border)
        index = index.to(self._labels.device, non_blocking=True)
        batch = Batch(_to_float(shown), self._labels[index], index, view, weight)
        if noise is not None:
            batch = self._augmentations(batch, noise, self._classes)
        if self._importance is not None:
            soft = batch.soft
            batch = batch._replace(importance=self._importance[batch.y] if soft is None else soft @ self._importance)
        return batch

    def _plan(self, steps: Iterable[int]) -> Iterator[Planned]:
        """This process's share of the batches of these steps, counted from the start of training.

        A replayed batch is the same object.
        """
        shuffled_pass, planned_batch = -1, -1
        positions = torch.arange(len(self._labels)).tensor_split(len(self))
        for step in steps:
            if step // self.replays != planned_batch:
                planned_batch = step // self.replays
                current_pass, number = divmod(planned_batch, len(self))
                if current_pass != shuffled_pass:
                    order, views = self._shuffle(current_pass)
                    shuffled_pass = current_pass
                whole = positions[number]
                own = whole.tensor_split(self._size)[self._rank]
                chosen = slice(int(own[0]), int(own[-1]) + 1)
                view, noise = View(*(part[chosen] for part in views[:3])), None
                if self._augmentations:
                    drawn = self._augmentations.noise(self._seed, current_pass, number, len(whole))
                    noise = drawn.tensor_split(self._size)[self._rank]
                    view = self._augmentations.look(view, noise, *self._shape[1:])
                shown = view if self._pad or self._flip or self._augmentations else None
                planned = order[chosen], shown, len(own) * self._size / len(whole), noise
            yield planned

    def _shuffle(self, number: int) -> tuple[Tensor, View]:
        """The order of the images in a pass, and the view of each, in that order.

        Images that are read in groups are shuffled within a window, and their groups are shuffled.
        """
        n, device = len(self._labels), self._labels.device
        # Drawn on the host and moved once, so that the random numbers are the same for every device.
        state = np.random.SeedSequence((self._seed, number)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        order = torch.randperm(n, generator=generator)
        views = draw_views(n, self._pad, self._flip, generator)
        if self._balance == "sampling":
            order = balanced_deck(self._labels.cpu(), self._seed, number)[order]
        if self._groups is not None and n > WINDOW:
            group_rank = torch.randperm(int(self._groups.max()) + 1, generator=generator)[self._groups[order]]
            order = order[group_rank.argsort(stable=True)]
            jittered = torch.arange(n) + WINDOW * torch.rand(n, generator=generator, dtype=torch.float64)
            order = order[jittered.argsort()]
        kept = order if isinstance(self._images, Stored) else order.to(device)
        return kept, View(*(part.to(device) for part in views[:3]))


def steps_per_epoch(count: int, batch_size: int, size: int) -> int:
    """The number of batches per epoch: ceil(count / batch_size), or fewer so that each of `size` processes has an
    image in every batch."""
    return max(1, min(-(-count // batch_size), count // size))


def batches(images: ImageSet, batch_size: int, device: torch.device | str) -> Iterator[Batch]:
    """The images in order and without augmentation, for evaluation. Only the batch is moved to the device.

    x is float32 in [0, 1], channels_last if C > 1.

    Raises:
        UserError: a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {batch_size}")
    for first in range(0, len(images), batch_size):
        yield pick(images, torch.arange(first, min(first + batch_size, len(images))), device)


def pick(images: ImageSet, index: Int64[Tensor, "chosen"], device: torch.device | str) -> Batch:
    """One batch of the images at these positions, without augmentation."""
    x = _to_float(images.images[index].to(device))
    return Batch(x, images.labels[index].to(device), index.to(device))
