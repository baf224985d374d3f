"""How long a training pass takes in bfloat16 on a CPU, by torch's autocast and by rounding, as a share of float32's.

python benchmarks/bfloat16.py [--width 16] [--images 32] [--rounds 5]

One thread, a ResNet-18 in channels_last, forward and backward pass. Every round times all three, one after the other;
medians of the rounds' ratios are printed with what `--precision auto` means on this machine.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

import torch

from regmix.models import ResNet, build
from regmix.runtime import devices
from regmix.runtime.rounded import rounded_autocast


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

    contexts = {
        "float32": nullcontext,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "rounded": rounded_autocast,
    }

    def seconds(context: str) -> float:
        began = time.perf_counter()
        with contexts[context]():
            loss = model(x).float().sum()
        loss.backward()
        return time.perf_counter() - began

    for context in contexts:
        seconds(context)
    rounds = [{context: seconds(context) for context in contexts} for _ in range(flags.rounds)]
    plain = statistics.median(each["float32"] for each in rounds)
    print(f"float32: {plain:.3f} s")
    for context in ("autocast", "rounded"):
        ratio = statistics.median(each[context] / each["float32"] for each in rounds)
        print(f"bfloat16, {context}: {ratio:.2f} of that")
    print(f"--precision auto means {devices.resolved('auto', torch.device('cpu'))} here")


if __name__ == "__main__":
    main()
