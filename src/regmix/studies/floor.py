"""The least time that a device could take for a training step: its arithmetic at the speed of a matrix product."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDES = {"cuda": 8192, "cpu": 1024}
"""Sides of the matrices whose product is timed: large enough to use the whole device."""
REPEATS = 10
DTYPES = {"bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64}
"""What each precision multiplies in."""


def flops(work: Callable[[], object]) -> int:
    """Additions and multiplications of the convolutions and matrix products of some work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the product of two square matrices, n^2 (2 n - 1) of them: the best of ten."""
    side = SIDES[device.type]
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    left @ right
    return side**2 * (2 * side - 1) / min(time_of(lambda: left @ right, device) for _ in range(REPEATS))


def time_of(work: Callable[[], object], device: torch.device) -> float:
    """How long some work takes on the device, once everything before it is done."""
    began = now(device)
    work()
    return now(device) - began


def now(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
