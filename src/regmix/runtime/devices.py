"""Devices and precision: the only file that knows Lightning Fabric."""

import ctypes
import logging
import os
import platform
import sys
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from regmix.runtime import processes
from regmix.types import UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "32", "bf16", "64"]

_FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "64-true"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "64": "64-true",
}


def start(
    device: Device, precision: Precision, *, together: bool = False, some_unused: bool = False, patient: bool = False
) -> Fabric:
    """Lets the processes that torchrun started, if any, meet, and launches Fabric on this one's device.

    device auto takes a CUDA GPU where there is one; several processes on a machine take one each. precision auto means
    bf16 (autocast with float32 weights) where `computes_in_bfloat16`, else 32, which is float32 throughout (no TF32);
    64 is for checks. On a CPU the process keeps freed memory from then on.
    With `together` a module that Fabric sets up has its gradients averaged over the processes; with
    `some_unused` there may be parameters without one. `patient`: see `meet`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device on this machine; use --device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        _keep_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    processes.forget_others()
    local, here = processes.on_this_machine()
    if device == "cuda" and torch.cuda.device_count() < here:
        raise UserError(
            f"{here} processes on a machine with {torch.cuda.device_count()} CUDA devices; one each, please"
        )
    processes.meet(device, patient=patient)
    number = _FABRIC_PRECISION[resolved(precision, torch.device(device))]
    if number == "32-true":
        # torch's default on a GPU computes float32 convolutions with ten bits of the mantissa
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    # Named, because Fabric would guess from variables of the environment, which a cluster sets for other reasons.
    if together and processes.size() > 1:
        os.environ["LOCAL_RANK"] = str(local)  # which those who start one process per machine leave out
        fabric = Fabric(
            accelerator=device,
            devices=here,
            num_nodes=processes.size() // here,
            strategy="ddp_find_unused_parameters_true" if some_unused else "ddp",
            precision=number,
            plugins=TorchElasticEnvironment(),
        )
    else:
        devices = [local] if device == "cuda" else 1
        fabric = Fabric(accelerator=device, devices=devices, precision=number, plugins=LightningEnvironment())
    fabric.launch()
    return fabric


def resolved(precision: Precision, device: torch.device) -> Literal["32", "bf16", "64"]:
    """The precision that auto stands for on this device; any other as it is."""
    if precision != "auto":
        return precision
    return "bf16" if computes_in_bfloat16(device) else "32"


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 arithmetic. Emulated, it is slower than float32: seven times on an AVX2 CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _keep_memory() -> None:
    """Lets the process keep the memory of freed tensors for the next ones, where the C library is glibc.

    It would give memory back in every step and get it anew, page by page, as soon as a pass needs more than the one
    before, as where the graph of the attack's first pass is kept for the loss.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
        mallopt(trim_threshold, -1)  # never
        mallopt(mmap_threshold, 2**30)


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
