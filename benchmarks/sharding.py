"""Resident memory that a process of two gains by training a large model, with DDP and with sharded weights.

python benchmarks/sharding.py

A WideResNet-28-10 (36.5 million parameters, 146 MB in float32) with momentum and an average learns from three batches
of 20 small images, so that weights, not activations, are what there is. The C library is told to give back what is
freed, as it would otherwise hide what is borrowed for a while.
"""

import os
import resource
import subprocess
import sys
import tempfile

from regmix.cli.entry import main
from regmix.training.trainee import Trainee

WORDS = "train digits-regmix --model wide_resnet --model.depth 28 --averaging ema --train-examples 60 --validation 10 "
WORDS += "--batch-size 20 --epochs 1 --device cpu"


def resident() -> float:
    """Peak resident megabytes of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def child(words: list[str]) -> None:
    """Trains, and tells the memory before there is more than the model's first form, and after three steps."""
    real_init, real_end, before = Trainee.__init__, Trainee.end_epoch, 0.0

    def init(self: Trainee, *parts: object) -> None:
        nonlocal before
        before = resident()
        real_init(self, *parts)

    def end(self: Trainee, validation: dict[str, float] | None) -> dict[str, object]:
        print(f"process {os.environ['RANK']}: {resident() - before:.0f} MB", flush=True)
        return real_end(self, validation)

    Trainee.__init__, Trainee.end_epoch = init, end
    sys.exit(main(words))


if __name__ == "__main__":
    if "RANK" in os.environ:
        child(sys.argv[1:])
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072",
        "MALLOC_ARENA_MAX": "1",
    }  # fmt: skip
    for flag in ([], ["--shard-weights"]):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
            done = subprocess.run(
                [*command, *WORDS.split(), *flag, "--out", f"{folder}/run"],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
        found = sorted(line for line in done.stdout.splitlines() if "MB" in line)
        print("sharded" if flag else "DDP", *found, sep="\n")
