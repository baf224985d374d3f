"""What a method stores per row of the batch, per class, or once for all images.

A row that is not finite is not kept, but the one that it would replace: a step whose gradient is infinite or NaN is
left out, and must not change what the method has learned before.
"""

import torch
from torch import Tensor

from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.methods.rows import finite_rows
from regmix.runtime import processes
from regmix.types import Batch, Images


class PerRow:
    """A tensor for every row of the previous batch, whatever images the next batch shows."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device | str) -> None:
        self.values = torch.zeros((0, *shape), device=device)

    def read(self, batch: Batch) -> Images:
        """The tensors [B, C, H, W] of the previous batch; zero for rows that it did not have."""
        rows = self.values[: len(batch.x)].to(batch.x.dtype)
        return torch.cat([rows, torch.zeros_like(batch.x[len(rows) :])])

    def write(self, batch: Batch, seen: Images) -> None:
        """Keeps [B, C, H, W] for the next batch, in the same memory if they fit."""
        seen = torch.where(finite_rows(seen).view(-1, 1, 1, 1), seen, self.read(batch))
        if len(seen) > len(self.values) or seen.dtype != self.values.dtype:
            self.values = seen
        else:
            self.values[: len(seen)] = seen
            self.values[len(seen) :] = 0

    def gather(self) -> Tensor:
        return processes.together(self.values)

    def load(self, values: Tensor) -> None:
        self.values = processes.share(values.to(self.values.device))


class OneForAll:
    """One tensor for all images. All processes have the same one: that of rank 0 counts."""

    def __init__(self, shape: tuple[int, ...], device: torch.device | str) -> None:
        self.values = torch.zeros(shape, device=device)

    def read(self, batch: Batch) -> Tensor:
        """The tensor, whatever the batch."""
        return self.values.to(batch.x.dtype, copy=True)

    def write(self, batch: Batch, values: Tensor) -> None:
        """Keeps a tensor of the same shape, whatever the batch; all processes must call it."""
        values = self._finite(values) if values.shape == self.values.shape else values.nan_to_num(0.0)
        values = processes.as_first(values.contiguous())
        if values.dtype == self.values.dtype and values.shape == self.values.shape:
            self.values.copy_(values)
        else:
            self.values = values

    def _finite(self, values: Tensor) -> Tensor:
        return torch.where(values.isfinite().all(), values, self.values.to(values.dtype))

    def gather(self) -> Tensor:
        return self.values

    def load(self, values: Tensor) -> None:
        self.values = values.to(self.values.device, copy=True)


class PerClass(OneForAll):
    """A tensor for every class. `write` takes, and `gather` returns, those of all classes [classes, ...]."""

    def __init__(self, classes: int, shape: tuple[int, ...], device: torch.device | str) -> None:
        super().__init__((classes, *shape), device)

    def read(self, batch: Batch) -> Tensor:
        """The tensors [B, ...] of the classes of the batch's examples."""
        return self.values[batch.y].to(batch.x.dtype)

    def _finite(self, values: Tensor) -> Tensor:
        fine = finite_rows(values).view(-1, *[1] * (values.dim() - 1))
        return torch.where(fine, values, self.values.to(values.dtype))


Part = PerImage | NumberPerImage | PerRow | OneForAll
