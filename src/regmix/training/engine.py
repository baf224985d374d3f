"""Devices and precision: the only file that knows Lightning Fabric."""

import logging
import os
import sys
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

from regmix.types import UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "32", "bf16", "64"]

_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "64-true"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "64": "64-true",
}


def start(device: Device, precision: Precision) -> Fabric:
    """Launches Fabric on one device.

    device auto takes a CUDA GPU where there is one. precision auto means bf16 autocast with float32 weights, which is
    the fastest for convolutional networks of the usual widths on both; float64 is for checks.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device on this machine; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device,
        devices=1,
        precision=_FABRIC_PRECISION["bf16" if precision == "auto" else precision],
    )
    fabric.launch()
    return fabric


class Processes:
    """The processes that torchrun started for one evaluation, or the single one there is; they meet over gloo."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")

    def any(self, values: Tensor) -> Tensor:
        """Element by element, whether it is true in any process; every process must call it."""
        if self.size > 1:
            found = values.to(torch.uint8)
            dist.all_reduce(found, dist.ReduceOp.MAX)
            values = found.bool()
        return values

    def close(self) -> None:
        """Ends the group; without it gloo may abort when the interpreter ends."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that were in use: of the GPU's memory by tensors, without one of the process's own (resident).

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
