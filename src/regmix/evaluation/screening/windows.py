"""Maps of a network as memory, and windows of them that differ from one image to the next."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Map:
    """What a node computes from the known images, [B, C, H, W], kept as cells with a border of zeros around them."""

    def __init__(self, values: Float[Tensor, "batch channels height width"], border: int) -> None:
        (count, channels, height, width), self.border = values.shape, border
        self.cells = values.new_zeros(count, height + 2 * border, width + 2 * border, channels)
        self.inside.copy_(values.movedim(1, 3))

    @property
    def inside(self) -> Float[Tensor, "batch height width channels"]:
        b = self.border
        return self.cells[:, b : self.cells.shape[1] - b, b : self.cells.shape[2] - b]

    def places(self, top: Tensor, left: Tensor, height: int, width: int) -> Int[Tensor, "cells"]:
        """Indices among the cells of a rectangle per image; its place counts from the map's corner."""
        rows, columns = self.cells.shape[1:3]
        corner = (torch.arange(len(top), device=top.device) * rows + top + self.border) * columns + left + self.border
        steps = torch.arange(height, device=top.device)[:, None] * columns + torch.arange(width, device=top.device)
        return (corner[:, None] + steps.view(1, -1)).flatten()


@dataclass(frozen=True)
class Window:
    """A rectangle per image, of one size, in which a map differs from the known one, and what it holds there."""

    values: Float[Tensor, "batch channels height width"]
    top: Int[Tensor, "batch"]
    left: Int[Tensor, "batch"]
    map: Map | None

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[2], self.values.shape[3]

    def keep(self, rows: Bool[Tensor, "batch"]) -> None:
        """Writes what these rows hold into the map."""
        if self.map is not None:
            places = self.map.places(self.top, self.left, *self.size).view(len(rows), -1)[rows]
            cells = self.map.cells
            cells.view(-1, cells.shape[3]).index_copy_(0, places.flatten(), self._cells(self.values[rows]))

    def read(self, top: Tensor, left: Tensor, height: int, width: int) -> Float[Tensor, "batch channels height width"]:
        """Other rectangles of the map as it would be with this window."""
        if top is self.top and left is self.left and (height, width) == self.size:
            return self.values
        assert self.map is not None
        cells, count = self.map.cells, len(top) * height * width
        # One more cell takes what lies outside.
        patch = cells.new_empty(count + 1, cells.shape[3])
        places = self.map.places(top, left, height, width)
        torch.index_select(cells.view(-1, cells.shape[3]), 0, places, out=patch[:count])
        rows, inside_rows = self._steps(self.top, self.size[0], top, height)
        columns, inside_columns = self._steps(self.left, self.size[1], left, width)
        each = torch.arange(len(top), device=top.device)[:, None, None]
        here = (each * height + rows[:, :, None]) * width + columns[:, None]
        here = torch.where(inside_rows[:, :, None] & inside_columns[:, None], here, count)
        patch.index_copy_(0, here.flatten(), self._cells(self.values))
        return patch[:count].view(len(top), height, width, -1).movedim(3, 1)

    def whole(self) -> Float[Tensor, "batch channels height width"]:
        """The whole map with this window."""
        assert self.map is not None
        corner = torch.zeros_like(self.top)
        return self.read(corner, corner, *self.map.inside.shape[1:3])

    def _cells(self, values: Tensor) -> Float[Tensor, "cells channels"]:
        assert self.map is not None
        return values.movedim(1, 3).flatten(0, 2).to(self.map.cells.dtype)

    @staticmethod
    def _steps(start: Tensor, size: int, origin: Tensor, whole: int) -> tuple[Tensor, Tensor]:
        """Places [B, size] from `start` on, counted from `origin`, and which of them lie within `whole`."""
        steps = (start - origin)[:, None] + torch.arange(size, device=start.device)
        return steps, (steps >= 0) & (steps < whole)


def hull(intervals: list[tuple[Tensor, int]], whole: int) -> tuple[Tensor, int]:
    """The smallest intervals of one size that cover the given ones of every row: where they begin, and their size."""
    if len(intervals) == 1:
        return intervals[0]
    starts = torch.stack([first for first, _ in intervals])
    ends = torch.stack([first + size for first, size in intervals])
    start, end = starts.amin(0), ends.amax(0)
    for row, (first, size) in enumerate(intervals):
        # Often one of them covers the others, and need not be read again.
        if torch.equal(starts[row], start) and torch.equal(ends[row], end):
            return first, size
    size = int((end - start).max())
    return start.clamp(max=whole - size), size
