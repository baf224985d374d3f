"""Stratified splits into training and validation images."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from regmix.data.images import ImageSet
from regmix.types import UserError


def stratified_order(
    labels: Int64[Tensor, "examples"], seed: int, *, random_start: bool = False
) -> Int64[Tensor, "examples"]:
    """A random order of the examples in which every prefix holds the classes in their overall proportions.

    Within a class of n examples, in random order, the k-th example gets the sort key (k + 1/2) / n. With `random_start`
    the key is (k + u) / n, with one u per class uniform in [0, 1). Then every example has the same chance to be in a
    prefix; without it small classes are too rare in short prefixes.
    """
    y = labels.numpy()
    # NumPy guarantees the stream of RandomState for ever; that of the newer Generator may change between versions.
    random = np.random.RandomState(np.random.MT19937(seed))
    shuffled = random.permutation(len(y))
    y = y[shuffled]
    counts = np.bincount(y)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(y), dtype=np.int64)
    rank[np.argsort(y, kind="stable")] = np.arange(len(y)) - np.repeat(first, counts)
    start = random.random_sample(len(counts))[y] if random_start else 0.5
    key = (rank + start) / counts[y]
    return torch.from_numpy(shuffled[np.argsort(key, kind="stable")])


MOST_VALIDATION, VALIDATION_SHARE = 1000, 0.15


def split_train(
    train: ImageSet, examples: int | None, validation: int | None, seed: int, held_out: ImageSet | None = None
) -> tuple[ImageSet, ImageSet]:
    """The images to train on and those for validation, both stratified and in their original order.

    Validation images are taken from the training images, unless there are others. The choice depends only on the
    labels, the numbers and `seed`. The validation images do not depend on `examples`, and a smaller training set is
    part of a larger one.

    Args:
        examples: how many images to train on; None: all but those for validation.
        validation: how many validation images; None: 15 % of the training images, or all that are held out, but at
            most 1,000.
        held_out: images for validation alone.

    Raises:
        UserError: there are not enough images, or none is left for training.
    """
    if validation is not None and validation < 0:
        raise UserError(f"the number of validation images must not be negative: {validation}")
    if held_out is not None:
        if validation is None:
            validation = min(MOST_VALIDATION, len(held_out))
        if validation > len(held_out):
            raise UserError(
                f"{validation} validation images are not available: their folder has {len(held_out)}; ask for fewer "
                "with --validation, or for all with --validation None"
            )
        chosen = stratified_order(held_out.labels, seed)[:validation]
        return split_train(train, examples, 0, seed)[0], held_out.subset(chosen.sort().values)
    if validation is None:
        validation = min(MOST_VALIDATION, max(1, round(VALIDATION_SHARE * len(train))))
    left = len(train) - validation
    wanted = left if examples is None else examples
    if left < 1:
        raise UserError(
            f"{validation} validation images leave nothing of the {len(train)} training images; "
            "ask for fewer with --validation"
        )
    if not 1 <= wanted <= left:
        raise UserError(
            f"{wanted} training examples are not available: the set has {len(train)}, of which {validation} "
            f"are for validation; ask for 1 to {left}"
        )
    order = stratified_order(train.labels, seed)
    chosen = order[validation : validation + wanted]
    return train.subset(chosen.sort().values), train.subset(order[:validation].sort().values)
