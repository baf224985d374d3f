"""One of two processes whose work is interrupted again and again; it prints "ended" where it always got away."""

import os
import sys

import torch
from torch import nn

from regmix import processes


def fail_with_a_wrapped_model() -> None:
    """What a training leaves in the traceback of the exception that ends it."""
    wrapped = nn.parallel.DistributedDataParallel(nn.Linear(4, 2))
    for _ in range(3):
        wrapped(torch.ones(1, 4)).sum().backward()
        processes.every(1)
    raise KeyboardInterrupt


port = int(os.environ["MASTER_PORT"])
for turn in range(int(sys.argv[1])):
    os.environ["MASTER_PORT"] = str(port + turn)
    processes.meet("cpu")
    try:
        try:
            fail_with_a_wrapped_model()
        finally:
            processes.close()
    except KeyboardInterrupt:
        pass
print("ended")
