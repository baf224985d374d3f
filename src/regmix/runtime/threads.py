"""How OpenMP's worker threads wait; it must be said before torch is imported."""

import os

SPIN_COUNT = "1000"
"""Turns in which a waiting worker looks again before it gives up its CPU. The default of libgomp, 300,000, takes the
CPU from other processes, and from the worker that is waited for, as soon as another process is busy on the machine.
benchmarks/shared_cpu.py compares them."""


def share_the_cpu() -> None:
    """Lets workers give up their CPU soon while they wait, unless the environment says how they wait."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
