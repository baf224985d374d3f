"""How long a step waits for images that are decoded when they are looked at, on a set that memory could not hold.

python benchmarks/streaming.py --data folder --root DIR --size 32 --limit 2 --steps 150 --rounds 3
python benchmarks/streaming.py --data parquet --root DIR --image-column img --limit 2

Trains with a recipe's own loop for some steps, in a process whose data memory (RLIMIT_DATA: heap and private mappings)
is limited, and then on 6,000 images of the same set decoded into memory, for as many steps or one epoch, in turns, and
prints the share of the time in which a step waited for its batch (the first, for which nothing is read ahead,
included), images per second and peak memory. Says first whether the whole set could be decoded under the limit.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import regmix.training.start
from regmix.data import DataConfig, Folder, ImageSet, Parquet, load
from regmix.recipes import recipe
from regmix.training.start import run
from regmix.training.trainee import Trainee


class Done(Exception):  # noqa: N818
    """The steps are made."""


class Silent:
    """Shows nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def measure(flags: argparse.Namespace) -> dict[str, float]:
    """Trains for some steps; what it found."""
    if flags.limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(flags.limit * 2**30),) * 2)
    torch.set_num_threads(flags.threads)
    if flags.child == "whole":
        load(source(flags), "train").resident()
        return {}
    learn: Any = Trainee.learn

    def learn_and_stop(self: Trainee, batch: Any) -> None:
        learn(self, batch)
        if self.step == flags.steps:
            raise Done(self.waited, self.trained)

    def load_some(config: DataConfig, split: Any) -> ImageSet:
        images = load(config, split)
        if flags.child == "memory":
            images = images.subset(torch.arange(0, len(images), len(images) // 6000)).resident()
        return images

    Trainee.learn = learn_and_stop  # type: ignore[method-assign]
    regmix.training.start.load = load_some
    experiment = replace(
        recipe(flags.recipe), data=source(flags), train_examples=None, device="cpu", epochs=1,
        schedule=replace(recipe(flags.recipe).schedule, milestones=()),
    )  # fmt: skip
    if flags.child == "memory":
        flags.steps = min(flags.steps, 5500 // experiment.batch_size)  # 500 are for validation
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(experiment, Path(folder) / "run", Silent())
    except Done as done:
        waited, trained = done.args
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "waited": waited / trained,
        "images_per_second": (flags.steps - 1) * experiment.batch_size / trained,
        "peak": peak,
    }


def source(flags: argparse.Namespace) -> Folder | Parquet:
    """The data, streamed."""
    if flags.data == "folder":
        return Folder(root=flags.root, size=flags.size, stream=True)
    return Parquet(root=flags.root, image_column=flags.image_column, size=flags.size, stream=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="cifar10-regmix-cpu")
    parser.add_argument("--data", choices=["folder", "parquet"], required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--image-column", default="image")
    parser.add_argument("--limit", type=float, default=0, help="GiB of data memory; 0: as much as there is")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=["whole", "streamed", "memory"])
    flags = parser.parse_args()
    if flags.child:
        print(json.dumps(measure(flags)))
        return

    def child(kind: str) -> dict[str, float] | None:
        done = subprocess.run([sys.executable, *sys.argv, "--child", kind], capture_output=True, text=True)
        if done.returncode:
            print(f"{kind}: {done.stderr.strip().splitlines()[-1]}")
            return None
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    images = load(source(flags), "train").images
    size = images.shape[0] * images.shape[1] * images.shape[2] * images.shape[3]
    print(f"{platform.machine()}, torch {torch.__version__}, {flags.threads} threads, {flags.recipe}")
    print(f"{len(images)} images of {images.shape[1:]}: {size / 2**30:.2f} GiB decoded; {flags.limit} GiB allowed")
    if child("whole") is not None:
        print("whole: the set would fit into memory")
    rounds = [(child("streamed"), child("memory")) for _ in range(flags.rounds)]
    for name, those in zip(("streamed", "memory"), zip(*rounds, strict=True), strict=True):
        values = [one for one in those if one is not None]
        print(
            f"{name:<9} waited {statistics.median(one['waited'] for one in values):.2%} "
            f"({', '.join(format(one['waited'], '.2%') for one in values)}), "
            f"{statistics.median(one['images_per_second'] for one in values):.0f} images/s "
            f"({', '.join(format(one['images_per_second'], '.0f') for one in values)}), "
            f"peak {max(one['peak'] for one in values) / 2**30:.2f} GiB"
        )


if __name__ == "__main__":
    main()
