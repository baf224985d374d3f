"""What methods remember: a tensor for every training image, which moves with its crop and flip, or for a batch."""

import torch
from jaxtyping import Int
from torch import Tensor

from regmix.data.augment import from_view, to_view
from regmix.runtime import processes
from regmix.threats import Linf, Threat
from regmix.types import Batch, Images, PerExample, UserError, require


def _indexable(rows: Tensor) -> Tensor:
    """The same memory as bytes if it is float8, which older versions of torch can neither index nor concatenate."""
    return rows.view(torch.uint8) if rows.dtype == torch.float8_e5m2 else rows


class Shelf:
    """A row for every training image: of several processes each keeps the rows of every size-th image.

    All of them read and write at once, each for the examples that it sees.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
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
        found = kept.new_zeros((len(wanted), *kept.shape[1:]))
        found[mine] = kept[wanted[mine] // self._size]
        # One process has a row and the others have zeros, so that the sum of the bytes is the row.
        rows = processes.total(processes.as_bytes(found)).view(found.dtype).view_as(found)
        return processes.share(rows).view(self.dtype)

    def write(self, index: Int[Tensor, "batch"], rows: Tensor) -> None:
        """Replaces the rows of these images."""
        rows = _indexable(rows.to(self.dtype))
        if self._size > 1:
            index, rows = processes.together(index), processes.together(rows)
            mine = index % self._size == self._rank
            index, rows = index[mine] // self._size, rows[mine]
        _indexable(self._rows)[index] = rows

    def gather(self) -> Tensor:
        """All rows."""
        if self._size == 1:
            return self._rows
        rows = processes.together(_indexable(self._rows))
        whole = rows.new_zeros((self._count, *rows.shape[1:]))
        for rank in range(self._size):
            length = len(range(rank, self._count, self._size))
            whole[rank :: self._size], rows = rows[:length], rows[length:]
        return whole.view(self.dtype)

    def load(self, rows: Tensor) -> None:
        """Takes its own of all rows."""
        self._rows.copy_(rows[self._rank :: self._size])


class Prior:
    """Remembers one tensor of an image's shape for every training image, in the image's own coordinates.

    Reading gives it as the batch's view shows it (cropped, mirrored, zero outside the image); writing puts it back
    where the view looked. With dtype int8 values in [-limit, limit] are kept in 254 steps of limit / 127; with
    float8_e5m2 values of a size of 2^-16 to 57344 are kept to 12 %, smaller ones as 0.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, int, int],
        pad: int,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.int8,
        limit: float = 1.0,
    ) -> None:
        self.count = count
        self._shelf = Shelf(count, shape, dtype, device)
        self.gather, self.load = self._shelf.gather, self._shelf.load
        self.pad = pad
        self.scale = limit / 127 if dtype == torch.int8 else None

    def read(self, batch: Batch) -> Images:
        """The remembered tensors [B, C, H, W] of the batch's examples, as its view shows them."""
        assert batch.index is not None, "a method with a memory needs to know which examples it sees"
        values = self._decode(self._shelf.read(batch.index), batch.x.dtype)
        return values if batch.view is None else to_view(values, batch.view, self.pad)

    def write(self, batch: Batch, seen: Images) -> None:
        """Remembers [B, C, H, W] for the batch's examples; what its view did not show stays as it was."""
        assert batch.index is not None, "a method with a memory needs to know which examples it sees"
        if batch.view is not None:
            # A view without a border shows all of the image.
            onto = self._decode(self._shelf.read(batch.index), seen.dtype) if self.pad else seen
            seen = from_view(seen, batch.view, self.pad, onto)
        # What a step whose gradient is not finite leaves; a NaN would stay for good, and as int8 be anything.
        seen = seen.nan_to_num(0.0)
        if self.scale is not None:
            seen = (seen / self.scale).round_().clamp_(-127, 127)
        elif self._shelf.dtype == torch.float8_e5m2:
            seen = seen.clamp(-57344, 57344)
        self._shelf.write(batch.index, seen)

    def _decode(self, stored: Tensor, dtype: torch.dtype) -> Tensor:
        return stored.to(dtype) if self.scale is None else stored.to(dtype) * self.scale


class BatchPrior:
    """Remembers one tensor for every row of the batch before, whichever images the next batch shows."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        self.values = torch.zeros((0, *shape), device=device)

    def read(self, batch: Batch) -> Images:
        """The remembered tensors [B, C, H, W]; zero for rows that the batch before did not have."""
        there = self.values[: len(batch.x)].to(batch.x.dtype)
        return torch.cat([there, torch.zeros_like(batch.x[len(there) :])])

    def write(self, batch: Batch, seen: Images) -> None:
        """Remembers [B, C, H, W] for the next batch."""
        self.values = seen.nan_to_num(0.0)

    def gather(self) -> Tensor:
        return processes.together(self.values)

    def load(self, values: Tensor) -> None:
        self.values = processes.share(values.to(self.values.device))


class ScalarPrior:
    """Remembers one number for every training image."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        self._shelf = Shelf(count, (), torch.float32, device)
        self.gather, self.load = self._shelf.gather, self._shelf.load

    def read(self, batch: Batch) -> PerExample:
        """The remembered numbers [B] of the batch's examples."""
        assert batch.index is not None, "a method with a memory needs to know which examples it sees"
        return self._shelf.read(batch.index).to(batch.x.dtype)

    def write(self, batch: Batch, seen: PerExample) -> None:
        """Remembers numbers [B] for the batch's examples."""
        assert batch.index is not None, "a method with a memory needs to know which examples it sees"
        self._shelf.write(batch.index, seen.nan_to_num(0.0))


AnyPrior = Prior | BatchPrior | ScalarPrior


def perturbations(count: int, shape: tuple[int, int, int], pad: int, threat: Threat, device: torch.device) -> Prior:
    """A memory of perturbations in the threat set: int8 under L-inf; bfloat16 elsewhere.

    The elements of a perturbation in an L2 ball are small against its radius, and int8 would lose them.
    """
    dtype = torch.int8 if isinstance(threat, Linf) else torch.bfloat16
    return Prior(count, shape, pad, device, dtype=dtype, limit=threat.eps)


def momenta(count: int, shape: tuple[int, int, int], pad: int, threat: Threat, device: torch.device) -> Prior:
    """A memory of gradients in units of a batch's mean absolute element: float8 under L-inf; bfloat16 elsewhere.

    Under L-inf only the sign of the sum with the next gradient counts, and images that the network is sure of have
    gradients that are orders of magnitude smaller than the others': the range matters, the last digits do not.
    """
    return Prior(count, shape, pad, device, dtype=torch.float8_e5m2 if isinstance(threat, Linf) else torch.bfloat16)


class _ReadOnly:
    def __init__(self, prior: AnyPrior) -> None:
        self.read = prior.read

    def write(self, batch: Batch, seen: Tensor) -> None:
        pass


class Memory:
    """The priors that a method keeps, if any, and how far training is, which the training loop sets."""

    def __init__(self, **priors: AnyPrior) -> None:
        self.priors = priors
        self.epoch, self.epochs, self.step = 0, 1, 0
        """The epoch that runs, counted from 0, how many there will be, and the step within the epoch."""

    def read_only(self) -> "Memory":
        """The same memory, which takes no notice of what is written to it."""
        other = Memory(**{name: _ReadOnly(prior) for name, prior in self.priors.items()})  # type: ignore[arg-type]
        other.epoch, other.epochs, other.step = self.epoch, self.epochs, self.step
        return other

    def state_dict(self) -> dict[str, Tensor]:
        """What all processes remember."""
        return {name: prior.gather() for name, prior in self.priors.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, prior in self.priors.items():
            prior.load(state[name])


def check_positions(batch: Batch, memory: Memory) -> Batch:
    """The batch with its index as int64. Numbers are looked at only where they lie on the CPU.

    Raises:
        UserError: no index for a memory of images, or one that is not a position per image in the memory.
    """
    by_image = [prior for prior in memory.priors.values() if isinstance(prior, Prior | ScalarPrior)]
    index = batch.index
    if not by_image or index is None:
        hint = "the method remembers every image: give Batch(x, y, index) their positions among the training images"
        require(not by_image, hint)
        return batch
    whole = not (index.is_floating_point() or index.dtype == torch.bool)
    if not whole or index.shape != batch.x.shape[:1] or index.device != batch.x.device:
        raise UserError(f"index is {index.dtype} {list(index.shape)}; give one position (int64) per image, beside x")
    if index.device.type == "cpu":
        count, low, high = min(prior.count for prior in by_image), int(index.min()), int(index.max())
        require(low >= 0 and high < count, f"index reaches from {low} to {high}, but the memory is for {count} images")
    return batch._replace(index=index.long())
