"""Peak memory of a method's per-sample memory on a data set of a given size, measured in a process of its own.

python benchmarks/memory.py fgsm_mep --images 100000 --size 64

Builds the memory of the method, trains a narrow network on random images for some steps with it, and prints the
resident memory that the process gained (a second process does the same with as few images as a batch has, so that the
network, the activations and torch itself cancel out) beside what the arithmetic says. The images are not part of it:
every method needs them.
"""

import argparse
import json
import resource
import subprocess
import sys

import torch

from regmix.methods import METHODS, Setup
from regmix.models import ResNet, build
from regmix.threats import Linf
from regmix.types import Batch, Clock, View


def peak(method: str, images: int, size: int, batch: int, steps: int) -> int:
    """Peak resident bytes of this process after some steps."""
    torch.manual_seed(0)
    chosen, threat = METHODS[method](), Linf(8 / 255)
    model = build(ResNet(width=8), 200)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    memory = chosen.memory(Setup(images, 200, (3, size, size), threat, pad=4))
    assert memory is not None
    for step in range(steps):
        index = torch.randperm(images)[:batch]
        view = View(torch.randint(9, (batch,)), torch.randint(9, (batch,)), torch.rand(batch) < 0.5)
        given = Batch(torch.rand(batch, 3, size, size), index % 200, index, view)
        losses = chosen(model, given, threat, memory, Clock(step, steps, 0, 1))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    for values in memory.state_dict().values():
        values.view(torch.uint8).bitwise_or_(0)  # makes every page resident, not only those of the batches
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--alone", action="store_true")
    flags = parser.parse_args()
    if flags.alone:
        print(json.dumps(peak(flags.method, flags.images, flags.size, flags.batch, flags.steps)))
        return

    def run(images: int) -> int:
        words = [flags.method, "--images", str(images), "--size", str(flags.size), "--batch", str(flags.batch)]
        done = subprocess.run(
            [sys.executable, __file__, *words, "--steps", str(flags.steps), "--alone"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return int(json.loads(done.stdout))

    base, full = run(flags.batch), run(flags.images)
    memory = METHODS[flags.method]().memory(Setup(1, 200, (3, flags.size, flags.size), Linf(8 / 255), pad=4))
    assert memory is not None, f"{flags.method} remembers nothing"
    counted = {name: values.nbytes for name, values in memory.state_dict().items()}
    print(f"{flags.method}, {flags.images} images of 3 x {flags.size} x {flags.size}")
    print(f"bytes per image: {counted}, together {flags.images * sum(counted.values()) / 1e9:.3f} GB")
    print(f"measured:        {(full - base) / 1e9:.3f} GB more than with {flags.batch} images ({base / 1e9:.3f} GB)")


if __name__ == "__main__":
    main()
