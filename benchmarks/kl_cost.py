"""What RegMix's KL terms cost in a training step, beside the squared distance of logits that FGSM-PGK uses instead.

python benchmarks/kl_cost.py [--rounds 15] [--threads 2]

For images of 32, 64 and 224 pixels and 10, 100 and 1000 classes: the seconds of a whole RegMix step of the narrow
ResNet-18 as the loop has it on a CPU (bf16 autocast, channels_last; attack, loss and backward pass), and, in turn with
it, of the three KL terms and of the one squared distance, each from finished logits to their gradients.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from regmix.methods import RegMix
from regmix.methods.mutual import Mutual
from regmix.models import ResNet, build
from regmix.objectives import precise
from regmix.threats import Linf
from regmix.training import TrainStep
from regmix.types import Batch, Losses

BATCHES = {32: 128, 64: 64, 224: 8}
"""Images per step at each size, so that a step takes about as long at all of them."""
WIDTH = 16


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def kl_terms(logits: list[torch.Tensor]) -> None:
    initial, final, clean = (part.detach().requires_grad_() for part in logits)
    losses = Losses({"zero": final.float().sum() * 0}, final, {})
    terms = Mutual(alpha=50, beta=20, gamma=20).join(losses, initial, lambda: clean)
    terms.total.backward()


def squared_distance(logits: list[torch.Tensor]) -> None:
    initial, final, _ = (part.detach().requires_grad_() for part in logits)
    (10 * (precise(final) - precise(initial)).square().mean()).backward()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    print("pixels classes batch      step   KL terms   share    l2 term   share")
    for size, batch_size in BATCHES.items():
        for classes in (10, 100, 1000):
            model = build(ResNet(width=WIDTH), classes, 3, [0.5] * 3, [0.25] * 3)
            model = model.to(memory_format=torch.channels_last).train()
            step = TrainStep(model, RegMix(), Linf(), classes, 1.0)
            x = torch.rand(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
            batch = Batch(x, torch.randint(classes, (batch_size,)))
            logits = [torch.randn(batch_size, classes).bfloat16() for _ in range(3)]

            def whole(step: TrainStep = step, batch: Batch = batch) -> None:
                with torch.autocast("cpu", torch.bfloat16):
                    losses = step(batch, None)
                losses.total.backward()
                step.zero_grad(set_to_none=True)

            rows = []
            for number in range(flags.rounds + 2):
                terms = [seconds(partial(term, logits)) for term in (kl_terms, squared_distance)]
                row = (seconds(whole), *terms)
                if number > 1:
                    rows.append(row)
            all_of_it, kl, distance = (statistics.median(column) for column in zip(*rows, strict=True))
            print(
                f"{size:>6} {classes:>7} {batch_size:>5} {all_of_it:>8.3f}s {1e3 * kl:>8.2f}ms {kl / all_of_it:>7.2%} "
                f"{1e3 * distance:>8.2f}ms {distance / all_of_it:>7.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
