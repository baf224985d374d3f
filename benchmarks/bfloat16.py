"""How long a training pass takes under bfloat16 autocast, as a share of its time in float32.

python benchmarks/bfloat16.py [--width 16] [--images 32] [--rounds 5]

One thread, a ResNet-18 in channels_last, forward and backward pass. Every round times both, one after the other; the
median of the rounds' ratios is printed with what `--precision auto` means on this machine.
"""

import argparse
import statistics
import time

import torch

from regmix.models import ResNet, build
from regmix.runtime import devices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(ResNet(width=flags.width), 10, 3).to(memory_format=torch.channels_last)
    x = torch.rand(flags.images, 3, 32, 32).to(memory_format=torch.channels_last)

    def seconds(*, cast: bool) -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = model(x).float().sum()
        loss.backward()
        return time.perf_counter() - began

    for cast in (False, True):
        seconds(cast=cast)
    rounds = [(seconds(cast=False), seconds(cast=True)) for _ in range(flags.rounds)]
    ratio = statistics.median(cast / plain for plain, cast in rounds)
    plain = statistics.median(plain for plain, _ in rounds)
    means = devices.resolved("auto", torch.device("cpu"))
    print(f"float32 {plain:.3f} s, bfloat16 {ratio:.2f} of that; --precision auto means {means} here")


if __name__ == "__main__":
    main()
