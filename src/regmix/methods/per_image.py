"""What a method stores per training image: a tensor of the image's shape, or a number.

A row that is not finite is not kept, but the one that it would replace: a step whose gradient is infinite or NaN is
left out, and must not change what the method has learned before.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from regmix.data.augment import from_view, to_view
from regmix.methods.rows import Rows, finite_rows
from regmix.types import Batch, Images, PerExample


class PerImage:
    """A tensor of an image's shape for every training image, in the image's own coordinates.

    `read` returns it as the batch's view shows it (cropped, mirrored, zero outside of the image and where it is
    hidden); `write` puts it back where the view looked. With dtype int8 values in [-limit, limit] are kept in 254 steps
    of limit / 127; with float8_e5m2 values of a size of 2^-16 to 57344 are kept to 12 %, smaller ones as 0.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, int, int],
        pad: int,
        device: torch.device | str,
        *,
        dtype: torch.dtype = torch.int8,
        limit: float = 1.0,
    ) -> None:
        self.count = count
        self._rows = Rows(count, shape, dtype, device)
        self.gather, self.load = self._rows.gather, self._rows.load
        self.pad = pad
        self.scale = limit / 127 if dtype == torch.int8 else None

    def read(self, batch: Batch) -> Images:
        """The tensors [B, C, H, W] of the batch's examples, as its view shows them."""
        values = self._decode(self._rows.read(_index(batch)), batch.x.dtype)
        return values if batch.view is None else to_view(values, batch.view, self.pad)

    def write(self, batch: Batch, seen: Images) -> None:
        """Keeps [B, C, H, W] for the batch's examples; pixels outside of the view keep their old values."""
        index = _index(batch)
        if batch.view is not None:
            # Without a border and hidden pixels a view shows the whole image.
            partial = self.pad or batch.view.hidden is not None
            onto = self._decode(self._rows.read(index), seen.dtype) if partial else seen
            seen = from_view(seen, batch.view, self.pad, onto)
        fine = finite_rows(seen)
        if self.scale is not None:
            seen = (seen / self.scale).round_().clamp_(-127, 127)
        elif self._rows.dtype == torch.float8_e5m2:
            seen = seen.clamp(-57344, 57344)
        self._rows.write(index, seen, fine)

    def _decode(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        return stored.to(dtype) if self.scale is None else stored.to(dtype) * self.scale


class NumberPerImage:
    """One number for every training image."""

    def __init__(self, count: int, device: torch.device | str) -> None:
        self.count = count
        self._rows = Rows(count, (), torch.float32, device)
        self.gather, self.load = self._rows.gather, self._rows.load

    def read(self, batch: Batch) -> PerExample:
        """The numbers [B] of the batch's examples."""
        return self._rows.read(_index(batch)).to(batch.x.dtype)

    def write(self, batch: Batch, seen: PerExample) -> None:
        """Keeps the numbers [B] for the batch's examples."""
        self._rows.write(_index(batch), seen, seen.isfinite())


def _index(batch: Batch) -> Int[Tensor, "batch"]:
    assert batch.index is not None, "a memory of images needs the positions of the batch's examples"
    return batch.index
