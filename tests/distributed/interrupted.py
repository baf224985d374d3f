"""One of two processes whose work is interrupted again and again; it prints "ended" where it always got away."""

import os
import sys

import torch
from torch import nn

from regmix.runtime import processes


def fail_with_a_wrapped_model() -> None:
    """What a training leaves in the traceback of the exception that ends it: variables, and a function's closure."""
    wrapped = nn.parallel.DistributedDataParallel(nn.Linear(4, 2))

    def step() -> None:
        wrapped(torch.ones(1, 4)).sum().backward()
        processes.every(1)

    def fail() -> None:
        step()
        raise KeyboardInterrupt if sys.argv[1] == "interrupted" else RuntimeError("a fault")

    step()
    fail()


@processes.closing
def command() -> int:
    processes.meet("cpu")
    try:
        fail_with_a_wrapped_model()
    except KeyboardInterrupt:
        return 130
    return 0


port, codes = int(os.environ["MASTER_PORT"]), set()
for turn in range(int(sys.argv[2])):
    os.environ["MASTER_PORT"] = str(port + turn)
    codes.add(command())
print("ended", codes)
