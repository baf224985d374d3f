"""Communication among the processes that torchrun started; with a single process everything works too.

Every function about all processes must be called by all of them, in the same order.
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
"""Environment variables of torchrun, SLURM and LSF that Lightning and torch read."""
MEND = "start several processes with torchrun, or unset RANK and WORLD_SIZE for one"


def started() -> tuple[int, int]:
    """The rank of this process and the number of processes that torchrun has started; (0, 1) without torchrun.

    RANK and WORLD_SIZE count only if both are set, because some clusters set one of them in every job. Variables of MPI
    and SLURM do not count, because they are also set for commands that do not belong together.

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
    """The local rank of this process and the number of processes on this machine; see `started`."""
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
    """Removes the variables of launchers from the environment if torchrun did not start this process.

    Libraries read them, some as soon as they are imported, and fail if one is empty or the others are missing.
    """
    on_this_machine()
    if not (os.environ.get("RANK") and os.environ.get("WORLD_SIZE")):
        for name in VARIABLES:
            os.environ.pop(name, None)


def meet(device: str, *, patient: bool = False) -> None:
    """Connects the processes that torchrun started: over gloo, and over NCCL for tensors on CUDA devices.

    With `patient` they wait up to a week for each other instead of torch's half hour, because in an evaluation one
    process may have hours more work than another. If a process dies, torchrun ends the others.
    """
    if started()[1] > 1 and not dist.is_initialized():
        timeout = timedelta(days=7) if patient else None
        dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=timeout)


def rank() -> int:
    """The rank of this process; 0 before `meet`."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """The number of processes; 1 before `meet`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """The sum over all processes, element by element. A single process gets its own tensor back, not a copy."""
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
    """The rows of all processes, in the order of their ranks.

    Processes may have different numbers of rows. Any dtype works, because only bytes are sent.
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
    """This process's part of the rows. It inverts `together` where the parts differ by one row at most."""
    return rows.tensor_split(size())[rank()] if size() > 1 else rows


def every(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks. Values must be picklable."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """The value of rank 0, in every process. It must be picklable."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def as_first(values: Tensor) -> Tensor:
    """Overwrites the values with those of rank 0, in place."""
    if size() > 1:
        dist.broadcast(values, 0)
    return values


def close() -> None:
    """Ends the process group. Nothing may hold on to it any more; see `closing`."""
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
        # Otherwise garbage collection at exit takes seconds, and a job that must end has few.
        gc.freeze()


def closing(command: Callable[P, int]) -> Callable[P, int]:
    """Decorates a command so that it ends the process group when it returns. Without that gloo may abort at exit.

    DDP's C++ object must be gone before the group is. If it is the last to hold the group, it ends the group's threads
    without releasing the interpreter lock, for which these threads may wait: a deadlock. The traceback of an exception
    keeps DDP alive. Therefore the command must handle its own exceptions; one that escapes is a bug and is printed.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        code = 1
        try:
            code = command(*args, **kwargs)
        except Exception:
            if not dist.is_initialized():
                raise
            traceback.print_exc()
        close()
        return code

    return wrapped


def as_bytes(values: Tensor) -> Tensor:
    """The bytes of a tensor as one uint8 vector, which every backend can send."""
    return values.contiguous().view(-1).view(torch.uint8)


class Total(torch.autograd.Function):
    """`total` with its derivative, the sum of all processes' gradients with respect to the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)
