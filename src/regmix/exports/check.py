"""Compares an exported file, as it is read back, with the model that it was made from."""

import torch
import torch.nn.functional as F
from torch import Tensor

from regmix.types import Images, Model, UserError

TOLERANCE = 1e-5
"""Largest difference of a logit, relative to the largest logit."""
BATCHES = (1, 4, 7)
"""Sizes of the batches that are compared: the number of images must be free."""


def random_images(shape: tuple[int, int, int], count: int = sum(BATCHES), seed: int = 0) -> Images:
    """Random images [count, C, H, W] in [0, 1]: in turn noise, one colour, and four patches of one colour each.

    Noise alone looks nearly the same to a network that averages over an image.
    """
    generator = torch.Generator().manual_seed(seed)
    images = []
    for number in range(count):
        grid = (shape[1:], (1, 1), (2, 2))[number % 3]
        drawn = torch.rand(1, shape[0], *grid, generator=generator)
        images.append(F.interpolate(drawn, size=shape[1:], mode="nearest"))
    return torch.cat(images)


def difference(model: Model, exported: Model, shape: tuple[int, int, int]) -> float:
    """How far the exported logits are from those of the model, on random images in batches of several sizes.

        max over images and classes |exported - model| / max over images and classes |model|

    It is infinite where a value is not finite, and 0 where both are 0 throughout.

    Raises:
        UserError: two passes of the model differ by more than the tolerance, or the exported logits have another shape.
    """
    batches = torch.split(random_images(shape), list(BATCHES))
    with torch.no_grad():
        first, second, other = ([each(batch) for batch in batches] for each in (model, model, exported))
    if _relative(first, second) > TOLERANCE:
        raise UserError(
            "the model is random: two passes give other logits, so no exported file can be compared with it"
        )
    for ours, theirs in zip(first, other, strict=True):
        if ours.shape != theirs.shape:
            raise UserError(
                f"the exported file returns {list(theirs.shape)} where the model returns {list(ours.shape)}"
            )
    return _relative(first, other)


def _relative(ours: list[Tensor], theirs: list[Tensor]) -> float:
    expected, found = torch.cat(ours).double(), torch.cat(theirs).double()
    if not (expected.isfinite().all() and found.isfinite().all()):
        return float("inf")
    error, size = float((found - expected).abs().max()), float(expected.abs().max())
    return error / size if size else 0.0 if error == 0 else float("inf")
