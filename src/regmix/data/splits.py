"""Fixed, stratified choices of training and validation images."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from regmix.data.images import ImageSet
from regmix.types import UserError


def stratified_order(
    labels: Int64[Tensor, "examples"], seed: int, *, random_start: bool = False
) -> Int64[Tensor, "examples"]:
    """A random order of the examples, every prefix of which holds the classes in their overall proportions.

    The k-th example of a class of n, in random order, comes at (k + 1/2) / n of the way. With `random_start` it comes
    at (k + u) / n, with u uniform in [0, 1) for every class: then small classes are not too rare in short prefixes, and
    every example has the same chance to be in one.
    """
    y = labels.numpy()
    # NumPy guarantees RandomState's stream for ever; the newer Generator's may change between versions.
    random = np.random.RandomState(np.random.MT19937(seed))
    shuffled = random.permutation(len(y))
    y = y[shuffled]
    counts = np.bincount(y)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(y), dtype=np.int64)
    rank[np.argsort(y, kind="stable")] = np.arange(len(y)) - np.repeat(first, counts)
    start = random.random_sample(len(counts))[y] if random_start else 0.5
    place = (rank + start) / counts[y]
    return torch.from_numpy(shuffled[np.argsort(place, kind="stable")])


def split_train(train: ImageSet, examples: int | None, validation: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Divides a training set into (train, validation), both stratified and in their original order.

    The choice depends on the labels, the numbers and `seed` alone; the validation images are the same
    whatever `examples` is, and fewer training examples are a subset of more. `examples` None takes all that
    is left. Raises UserError if more is asked for than there is, or if nothing is left to train on.
    """
    left = len(train) - validation
    wanted = left if examples is None else examples
    if validation < 0:
        raise UserError(f"the number of validation images must not be negative: {validation}")
    if left < 1:
        raise UserError(
            f"{validation} validation images leave nothing of the {len(train)} training images; "
            "ask for fewer with --validation"
        )
    if not 1 <= wanted <= left:
        raise UserError(
            f"{wanted} training examples cannot be had: the set has {len(train)}, {validation} of which "
            f"are for validation; ask for 1 to {left}"
        )
    order = stratified_order(train.labels, seed)
    chosen = order[validation : validation + wanted]
    return train.subset(chosen.sort().values), train.subset(order[:validation].sort().values)
