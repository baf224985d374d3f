"""What methods remember from step to step: per training image, per class, per row of the batch, or one for all.

A row that is not finite is not kept, but the one that it would replace: a step whose gradient is infinite or NaN is
left out, and must not change what the method has learned before.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regmix.data.augment import from_view, to_view
from regmix.methods.rows import Rows
from regmix.runtime import processes
from regmix.threats import Linf, Threat
from regmix.types import Batch, Images, PerExample, UserError, require


@dataclass(frozen=True)
class Setup:
    """What a memory is made for."""

    images: int
    """Number of training images."""
    classes: int
    """Number of classes."""
    shape: tuple[int, int, int]
    """Shape of an image [C, H, W]."""
    threat: Threat
    pad: int = 0
    """Width of the border that images are cropped out of, in pixels."""
    device: torch.device | str = "cpu"


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
        fine = _finite_rows(seen)
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
        seen = torch.where(_finite_rows(seen).view(-1, 1, 1, 1), seen, self.read(batch))
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
        fine = _finite_rows(values).view(-1, *[1] * (values.dim() - 1))
        return torch.where(fine, values, self.values.to(values.dtype))


Part = PerImage | NumberPerImage | PerRow | OneForAll


def _finite_rows(values: Tensor) -> Bool[Tensor, "batch"]:
    low, high = values.flatten(1).aminmax(dim=1)  # NaN if one of the values is; much faster than asking all of them
    return low.isfinite() & high.isfinite()


def _index(batch: Batch) -> Int[Tensor, "batch"]:
    assert batch.index is not None, "a memory of images needs the positions of the batch's examples"
    return batch.index


def perturbations(setup: Setup) -> PerImage:
    """A memory of each image's perturbation: int8 under L-inf, else bfloat16.

    The elements of a perturbation in an L2 ball are small compared to its radius, and int8 would lose them.
    """
    dtype = torch.int8 if isinstance(setup.threat, Linf) else torch.bfloat16
    return PerImage(setup.images, setup.shape, setup.pad, setup.device, dtype=dtype, limit=setup.threat.eps)


def momenta(setup: Setup) -> PerImage:
    """A memory of each image's gradients in units of the batch's mean absolute element: float8 under L-inf, else
    bfloat16.

    Under L-inf only the sign of the sum with the next gradient counts, and images that the network is sure of have
    gradients that are orders of magnitude smaller than the others: the range matters, the last digits do not.
    """
    dtype = torch.float8_e5m2 if isinstance(setup.threat, Linf) else torch.bfloat16
    return PerImage(setup.images, setup.shape, setup.pad, setup.device, dtype=dtype)


class _ReadOnly:
    def __init__(self, part: Part) -> None:
        self.read, self.gather = part.read, part.gather

    def write(self, batch: Batch, seen: Tensor) -> None:
        pass


class Memory:
    """The named parts of what a method remembers, such as memory["delta"]."""

    def __init__(self, **parts: Part) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def read_only(self) -> "Memory":
        """The same memory, which ignores what is written to it."""
        return Memory(**{name: _ReadOnly(part) for name, part in self.parts.items()})  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Tensor]:
        """The values of all parts, of all processes."""
        return {name: part.gather() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the values of `state_dict`; the number of processes may have changed."""
        for name, part in self.parts.items():
            part.load(state[name])


def check_positions(batch: Batch, memory: Memory) -> Batch:
    """The batch with its index as int64. Checks numbers only where they are on the CPU.

    Raises:
        UserError: no index for a memory of images, an index that is not a position per image in the memory, or labels
            that are none of the classes of a memory of classes.
    """
    counts = [part.count for part in memory.parts.values() if isinstance(part, PerImage | NumberPerImage)]
    classes = [len(part.values) for part in memory.parts.values() if isinstance(part, PerClass)]
    if classes and batch.y.device.type == "cpu":
        high, count = int(batch.y.max()), min(classes)
        require(high < count, f"labels reach {high}, but the memory is for {count} classes; make one with more classes")
    index = batch.index
    if not counts or index is None:
        hint = "the method remembers every image: give Batch(x, y, index) their positions among the training images"
        require(not counts, hint)
        return batch
    whole = not (index.is_floating_point() or index.dtype == torch.bool)
    if not whole or index.shape != batch.x.shape[:1] or index.device != batch.x.device:
        raise UserError(f"index is {index.dtype} {list(index.shape)}; give one position (int64) per image, beside x")
    if index.device.type == "cpu":
        count, low, high = min(counts), int(index.min()), int(index.max())
        require(low >= 0 and high < count, f"index reaches from {low} to {high}, but the memory is for {count} images")
    return batch._replace(index=index.long())
