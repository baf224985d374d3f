"""Which images of a split are looked at, where all would take too long, and how they were drawn."""

from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from regmix.data.splits import stratified_order
from regmix.types import Sample, UserError

How = Literal["stratified", "first"]
"""Evenly from the classes, or from the head of the split (where files are ordered by class: of the first classes)."""


def draw(
    labels: Int64[Tensor, "examples"], count: int | None, how: How = "stratified", seed: int = 0
) -> tuple[Sample, Int64[Tensor, "chosen"]]:
    """A sample of a split with these labels, and its positions in the split, in increasing order.

    The choice depends on the labels, the count, `how` and `seed` alone. Drawn evenly, every class has its share of the
    sample (to one image or two), every image has the same chance, and a smaller sample is a part of a larger one with
    the same seed. `count` None takes all images.

    Raises:
        UserError: a count below 1 or above the number of images, or a negative seed.
    """
    total = len(labels)
    if count is not None and not 1 <= count <= total:
        raise UserError(f"{count} images cannot be drawn from {total}; ask for 1 to {total}, or leave the number out")
    if seed < 0:
        raise UserError(f"the seed of the sample is {seed}; it must be at least 0")
    if count is None or count == total:
        return Sample(total, total, "all"), torch.arange(total)
    if how == "first":
        return Sample(count, total, "first"), torch.arange(count)
    order = stratified_order(labels, seed, random_start=True)
    return Sample(count, total, "stratified", seed), order[:count].sort().values


def spread(labels: Int64[Tensor, "examples"], most: int) -> Int64[Tensor, "chosen"]:
    """The positions of so many examples, or of all where there are fewer, drawn evenly from the classes."""
    return draw(labels, min(most, len(labels)))[1]
