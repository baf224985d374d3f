"""The processes that torchrun started for one piece of work, or the single one there is, and what they tell each other.

Every function that speaks of all processes must be called by all of them, in the same order.
"""

import gc
import os
import sys
import traceback
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def started() -> tuple[int, int]:
    """The rank of this process and the number of processes that torchrun has started; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def meet(device: str, *, patient: bool = False) -> None:
    """Lets the processes that torchrun started meet: over gloo, and for tensors on CUDA devices over NCCL.

    With `patient` they wait a week for each other, not torch's half an hour: in an evaluation one may have hours of
    work more than another. (torchrun ends those whose colleague has died.)
    """
    if started()[1] > 1 and not dist.is_initialized():
        patience = timedelta(days=7) if patient else None
        dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=patience)


def rank() -> int:
    """The number of this process among those that have met."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes have met; 1 before they do."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """The sum over all processes, element by element; values of a process that are alone are returned as they are."""
    if size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean of all elements in all processes."""
    if size() == 1:
        return values.mean()
    whole = total(torch.stack([values.sum(), values.new_tensor(values.numel())]))
    return whole[0] / whole[1]


def together(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; they may differ in number by process.

    Any dtype: only the bytes travel.
    """
    if size() == 1:
        return rows
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(size())]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    counts = [int(length) for length in lengths]
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather([as_bytes(part) for part in parts], as_bytes(padded))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def share(rows: Tensor) -> Tensor:
    """The rows that this process has of those of all: the inverse of `together` where the numbers differ by one."""
    return rows.tensor_split(size())[rank()] if size() > 1 else rows


def every(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks: plain objects."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def from_first(value: T) -> T:
    """What the first process gives: a plain object."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def as_first(values: Tensor) -> Tensor:
    """The first process's values, written over this one's."""
    if size() > 1:
        dist.broadcast(values, 0)
    return values


def close() -> None:
    """Ends the group; without it gloo may abort when the interpreter ends.

    To be called where the work that used the group is over, and in a `finally`: an exception that is on its way is
    relieved of the variables of the functions that it came from.
    """
    if dist.is_initialized():
        # DDP's C++ part must be gone before the group is. As the last one to know of the group it would end the group's
        # threads itself, without letting go of the interpreter, for which these threads may wait: forever.
        _clear(sys.exception())
        gc.collect()
        dist.destroy_process_group()
        # Without this the interpreter looks through all objects of all libraries when it ends, for seconds, and a job
        # that is told to end has few.
        gc.freeze()


def _clear(error: BaseException | None) -> None:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def as_bytes(values: Tensor) -> Tensor:
    """The bytes of the values, as one vector: what any backend can send."""
    return values.contiguous().view(-1).view(torch.uint8)


class Processes:
    """The processes that have met, as those who share an evaluation."""

    rank = property(lambda self: rank())
    size = property(lambda self: size())

    def any(self, values: Tensor) -> Tensor:
        """Element by element, whether it is true in any process; every process must call it."""
        return total(values.to(torch.int32)) > 0


class Total(torch.autograd.Function):
    """`total` with its derivative: the sum of the gradients that the processes have for the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)
