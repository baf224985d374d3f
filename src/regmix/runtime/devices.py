"""Devices and precision: the only file that knows Lightning Fabric."""

import ctypes
import logging
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from lightning_fabric import Fabric, plugins
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from regmix.runtime import processes
from regmix.runtime.rounded import rounded_autocast
from regmix.types import UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "32", "bf16", "64"]


class _Autocast(plugins.MixedPrecision):
    """bf16 autocast alone: Fabric's own would also round the arguments of a step to bfloat16.

    Images in [0.5, 1] would then be off by up to half of 1/255, the perturbations with them, and counts in a method's
    memory would end at 256.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def convert_input(self, data: Any) -> Any:
        return data

    def forward_context(self) -> AbstractContextManager[Any]:
        if self.device != "cpu" or computes_in_bfloat16(torch.device("cpu")):
            return super().forward_context()
        return rounded_autocast()


_ARITHMETIC: dict[str, Callable[[str], plugins.Precision]] = {
    "32": lambda device: plugins.Precision(),
    "bf16": _Autocast,
    "64": lambda device: plugins.DoublePrecision(),
}


def start(
    device: Device, precision: Precision, *, together: bool = False, some_unused: bool = False, patient: bool = False
) -> Fabric:
    """Connects the processes that torchrun started, if any, and launches Fabric on this process's device.

    On a CPU the process keeps freed memory from now on (see `_keep_memory`).

    Args:
        device: "auto" takes a CUDA GPU where there is one. Each process on a machine takes its own GPU.
        precision: "bf16" is bf16 autocast with float32 weights; on a CPU without bf16 arithmetic, layers compute in
            float32 and round (see `rounded_autocast`). "auto" is bf16 where the hardware computes in it, and else "32"
            (see `resolved`). "32" is float32 throughout, without TF32. "64" is float64, for checks.
        together: average gradients over the processes, for each module that Fabric sets up.
        some_unused: with `together`, allow parameters that get no gradient.
        patient: see `meet`.

    Raises:
        UserError: no CUDA device, or fewer than there are processes.
    """
    device = chosen(device)
    if device == "cpu":
        _keep_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    processes.forget_others()
    local, here = processes.on_this_machine()
    if device == "cuda" and torch.cuda.device_count() < here:
        raise UserError(
            f"{here} processes on a machine with {torch.cuda.device_count()} CUDA devices; "
            "start at most one process per device"
        )
    processes.meet(device, patient=patient)
    number = resolved(precision, torch.device(device))
    if number == "32":
        # By default torch computes float32 convolutions on a GPU in TF32, with a mantissa of ten bits.
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    arithmetic = _ARITHMETIC[number](device)
    # Name the environment: Fabric would guess it from variables that clusters also set for other reasons.
    if together and processes.size() > 1:
        os.environ["LOCAL_RANK"] = str(local)  # Fabric needs it; launchers of one process per machine leave it out
        fabric = Fabric(
            accelerator=device,
            devices=here,
            num_nodes=processes.size() // here,
            strategy="ddp_find_unused_parameters_true" if some_unused else "ddp",
            plugins=[TorchElasticEnvironment(), arithmetic],
        )
    else:
        devices = [local] if device == "cuda" else 1
        fabric = Fabric(accelerator=device, devices=devices, plugins=[LightningEnvironment(), arithmetic])
    fabric.launch()
    return fabric


def chosen(device: Device) -> Literal["cpu", "cuda"]:
    """The kind of device that auto stands for here; any other as it is. Raises UserError without a CUDA device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device on this machine; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolved(precision: Precision, device: torch.device) -> Literal["32", "bf16", "64"]:
    """The precision that auto stands for on this device; any other as it is."""
    if precision != "auto":
        return precision
    return "bf16" if computes_in_bfloat16(device) else "32"


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 arithmetic. Torch's emulation takes ten times as long as float32 with AVX2."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _keep_memory() -> None:
    """Makes glibc keep the memory of freed tensors for the next ones.

    Otherwise it returns memory to the system in every step and fetches it again page by page, as soon as one pass
    needs more than the one before. That happens when the graph of the attack's first pass is kept for the loss.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
        mallopt(trim_threshold, -1)  # never give memory back
        mallopt(mmap_threshold, 2**30)


def peak_memory(device: torch.device) -> int | None:
    """Peak memory in bytes: allocated by tensors on a GPU, resident in the process on a CPU. None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
