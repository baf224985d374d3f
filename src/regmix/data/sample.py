"""Samples of a split, for evaluations that would take too long on all images."""

from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from regmix.data.splits import stratified_order
from regmix.types import Sample, UserError

How = Literal["stratified", "first"]
"""stratified: in equal proportion from every class. first: the head of the split, which holds only the first classes if
files are ordered by class."""


def draw(
    labels: Int64[Tensor, "examples"], count: int | None, how: How = "stratified", seed: int = 0
) -> tuple[Sample, Int64[Tensor, "chosen"]]:
    """Draws a sample of a split with these labels; returns it and its positions in the split, in increasing order.

    The choice depends only on the labels, `count`, `how` and `seed`. In a stratified sample every class has its share
    (within two images) and every image has the same chance; a smaller sample is part of a larger one with the same
    seed. `count` None takes all images.

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
    """The positions of `most` examples, or of all if there are fewer, drawn stratified by class."""
    return draw(labels, min(most, len(labels)))[1]
