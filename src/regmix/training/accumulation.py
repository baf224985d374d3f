"""Gradient accumulation: a batch in parts, whose gradients add up to that of the batch."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from regmix.runtime import processes
from regmix.types import Batch, Losses


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """The batch in `count` parts of nearly equal size, or in fewer if it has fewer images.

    A part's weight is that of the batch times its share of the images. All processes get the same number of parts,
    because they meet in each.
    """
    images = len(batch.x)
    if count == 1:
        return [batch]
    smallest = round(images * processes.size() / batch.weight) // processes.size()
    first, parts = 0, []
    for shown in batch.x.tensor_split(min(count, smallest)):
        size = len(shown)
        part = cast(Batch, tree_map_only(Tensor, partial(torch.narrow, dim=0, start=first, length=size), batch))
        parts.append(part._replace(weight=batch.weight * size / images))
        first += size
    return parts


def joined(made: Sequence[tuple[Batch, Losses]]) -> Losses:
    """The losses of a batch from those of its parts: terms and statistics are means over the images."""
    if len(made) == 1:
        return made[0][1]
    images = sum(len(part.x) for part, _ in made)
    shares = [len(part.x) / images for part, _ in made]
    every = [losses for _, losses in made]

    def mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([share * value.detach() for share, value in zip(shares, values, strict=True)]).sum(0)

    return Losses(
        {name: mean([losses.terms[name] for losses in every]) for name in every[0].terms},
        torch.cat([losses.logits.detach() for losses in every]),
        {name: mean([losses.stats[name] for losses in every]) for name in every[0].stats},
    )
