"""The processes that torchrun started for one piece of work, or the single one there is, and what they tell each other.

Every function that speaks of all processes must be called by all of them, in the same order.
"""

import gc
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from regmix.types import require

P = ParamSpec("P")
T = TypeVar("T")

VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "TORCHELASTIC_RUN_ID"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
    *("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK"),
)
"""What torchrun, SLURM and LSF tell processes about each other, as far as Lightning and torch read it."""
MEND = "start several processes with torchrun, or unset RANK and WORLD_SIZE for one"


def started() -> tuple[int, int]:
    """The rank of this process and the number of processes that torchrun has started; (0, 1) without it.

    Both variables, RANK and WORLD_SIZE, count only together: some clusters set one of them in every job. So do
    MPI and SLURM with their own, for commands that have nothing to do with each other, and these do not count.

    Raises:
        UserError: the variables contradict each other.
    """
    if not (os.environ.get("RANK") and os.environ.get("WORLD_SIZE")):
        return 0, 1
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    require(rank < size, f"RANK={rank} and WORLD_SIZE={size} contradict each other; {MEND}")
    for name in ("MASTER_ADDR", "MASTER_PORT") if size > 1 else ():
        require(bool(os.environ.get(name)), f"RANK={rank} and WORLD_SIZE={size} are set, but {name} is not; {MEND}")
    return rank, size


def on_this_machine() -> tuple[int, int]:
    """The number of this process among those on this machine, and how many they are; see `started`."""
    size = started()[1]
    if size == 1:
        return 0, 1
    local, here = _number("LOCAL_RANK", "0"), _number("LOCAL_WORLD_SIZE", "1")
    require(
        local < here <= size, f"LOCAL_RANK={local}, LOCAL_WORLD_SIZE={here} and WORLD_SIZE={size} contradict; {MEND}"
    )
    return local, here


def _number(name: str, default: str = "") -> int:
    text = os.environ.get(name) or default
    require(text.isascii() and text.isdecimal(), f"{name}={text} is not a number; {MEND}")
    return int(text)


def forget_others() -> None:
    """Takes the variables of a work of several processes out of the environment if there is no such work here.

    Libraries read them on their own, some as soon as they are imported, and fail on one that is empty or alone.
    """
    on_this_machine()
    if not (os.environ.get("RANK") and os.environ.get("WORLD_SIZE")):
        for name in VARIABLES:
            os.environ.pop(name, None)


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
    """Ends the group, which nothing may know of any more; see `closing`."""
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
        # Without this the interpreter looks through all objects of all libraries when it ends, for seconds, and a job
        # that is told to end has few.
        gc.freeze()


def closing(command: Callable[P, int]) -> Callable[P, int]:
    """Lets a command end the group of processes when it is over; without that gloo may abort at the very end.

    DDP's C++ part must be gone before the group is. As the last one to know of the group it would end the group's
    threads itself, without letting go of the interpreter, for which these threads may wait: forever. The traceback of
    an exception holds on to DDP, so that this is for a function that has handled its exceptions; one that comes out of
    it is a fault of ours, and is shown here.
    """

    @wraps(command)
    def ended(*args: P.args, **kwargs: P.kwargs) -> int:
        code = 1
        try:
            code = command(*args, **kwargs)
        except Exception:
            if not dist.is_initialized():
                raise
            traceback.print_exc()
        close()
        return code

    return ended


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
