"""Batches of few sizes for a GPU, where libraries prepare every new shape of a convolution anew."""

from dataclasses import replace

import torch

from regmix.attacks.base import Screened
from regmix.models import Answers
from regmix.types import Images, Logits, Model

FINE = 8
"""Sizes between two powers of two: padding adds an eighth of the rows at most, but for batches below 8."""


def bucket(rows: int) -> int:
    """The smallest size of a batch that is at least `rows`: 8, 9, ..., 16, 18, ..., 32, 36, ..., 64, 72, ..."""
    step = max(1, (1 << max(0, (rows - 1).bit_length() - 1)) // FINE)
    return max(FINE, -(-rows // step) * step)


def padded(model: Model) -> Model:
    """The model, which sees batches of the sizes of `bucket` only; the rows that are added repeat the last one.

    Rows of images must not depend on each other. A model that screens is padded in both of its parts.
    """
    if isinstance(model, Answers):  # every row is a query
        return model
    if isinstance(model, Screened):
        return replace(model, rough=padded(model.rough), exact=padded(model.exact))

    def logits(images: Images) -> Logits:
        more = bucket(len(images)) - len(images)
        if not more:
            return model(images)
        return model(torch.cat([images, images[-1:].detach().expand(more, *images.shape[1:])]))[: len(images)]

    return logits
