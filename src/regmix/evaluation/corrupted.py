"""Accuracy on corrupted images."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from regmix.evaluation.battery import Journal, World, predict
from regmix.runtime.borrowed import borrowed
from regmix.types import Labels, Model


def withstood(
    model: Model,
    labels: Labels,
    kinds: Sequence[tuple[str, int]],
    make: Callable[[str, int], UInt8[Tensor, "examples channels height width"]],
    *,
    batch_size: int,
    device: torch.device,
    journal: Journal,
    world: World,
    on_work: Callable[[int], None],
) -> Bool[Tensor, "kinds examples"]:
    """Which examples are classified correctly under which corruption.

    Every process takes every size-th kind; what the journal remembers is not made again.

    Args:
        kinds: names and severities.
        make: the images of a kind, on the host.
        on_work: called after every kind with its number of images.
    """
    wrong = torch.zeros(len(kinds), len(labels), dtype=torch.bool)
    everyone = list(range(len(labels)))
    for number in range(world.rank, len(kinds), world.size):
        name, severity = kinds[number]
        fallen = journal.find(f"{name}-{severity}", everyone)
        if fallen is None:
            with borrowed(model):
                images = torch.split(make(name, severity), batch_size)
                seen = [
                    predict(model, part.to(device).float() / 255, some.to(device)).cpu()
                    for part, some in zip(images, torch.split(labels, batch_size), strict=True)
                ]
            fallen = (torch.cat(seen) != labels).nonzero()[:, 0].tolist()
            journal.add(f"{name}-{severity}", everyone, fallen)
        wrong[number, fallen] = True
        on_work(len(labels))
    return ~world.any(wrong)
