"""Rows of a tensor, one for every training image, divided among the processes of a training."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regmix.runtime import processes


def _indexable(rows: Tensor) -> Tensor:
    """The same memory as bytes if it is float8, which older versions of torch can neither index nor concatenate."""
    return rows.view(torch.uint8) if rows.dtype == torch.float8_e5m2 else rows


def finite_rows(values: Tensor) -> Bool[Tensor, "batch"]:
    """Which rows of a tensor [B, ...] have no infinity and no NaN."""
    low, high = values.flatten(1).aminmax(dim=1)  # NaN if one of the values is; much faster than asking all of them
    return low.isfinite() & high.isfinite()


class Rows:
    """A row for every training image. Each of n processes keeps the rows of every n-th image.

    All processes read and write at the same time, each the rows of its own examples.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        self._count, self._rank, self._size = count, processes.rank(), processes.size()
        self._rows = torch.zeros((len(range(self._rank, count, self._size)), *shape), dtype=dtype, device=device)

    @property
    def dtype(self) -> torch.dtype:
        return self._rows.dtype

    def read(self, index: Int[Tensor, "batch"]) -> Tensor:
        """The rows of these images."""
        kept = _indexable(self._rows)
        if self._size == 1:
            return kept[index].view(self.dtype)
        wanted = processes.together(index)
        mine = wanted % self._size == self._rank
        rows = kept.new_zeros((len(wanted), *kept.shape[1:]))
        rows[mine] = kept[wanted[mine] // self._size]
        # One process has a row and the others have zeros, so the sum of the bytes is the row.
        rows = processes.total(processes.as_bytes(rows)).view(rows.dtype).view_as(rows)
        return processes.share(rows).view(self.dtype)

    def write(self, index: Int[Tensor, "batch"], rows: Tensor, fine: Bool[Tensor, "batch"]) -> None:
        """Replaces the rows of these images where `fine`."""
        rows, kept = _indexable(rows.to(self.dtype)), _indexable(self._rows)
        if self._size > 1:
            index, rows, fine = processes.together(index), processes.together(rows), processes.together(fine)
            mine = index % self._size == self._rank
            index, rows, fine = index[mine] // self._size, rows[mine], fine[mine]
        kept[index] = torch.where(fine.view(-1, *[1] * (rows.dim() - 1)), rows, kept[index])

    def gather(self) -> Tensor:
        """The rows of all images."""
        if self._size == 1:
            return self._rows
        rows = processes.together(_indexable(self._rows))
        whole = rows.new_zeros((self._count, *rows.shape[1:]))
        for rank in range(self._size):
            length = len(range(rank, self._count, self._size))
            whole[rank :: self._size], rows = rows[:length], rows[length:]
        return whole.view(self.dtype)

    def load(self, rows: Tensor) -> None:
        """Keeps this process's part of the rows of all images."""
        self._rows.copy_(rows[self._rank :: self._size])
