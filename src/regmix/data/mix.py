"""Mixtures of two images of a batch and of their labels."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor

from regmix.data.crops import Noise, Rectangles, inside, whole
from regmix.types import Batch, Tag, require


@dataclass(frozen=True)
class NoMix:
    """Images are not mixed."""

    name: Tag[Literal["none"]] = field(default="none", kw_only=True)


@dataclass(frozen=True)
class Mixup:
    """Mean of two images and of their labels, with weights s and 1 - s, s ~ Beta(alpha, alpha) (arXiv 1710.09412).

    The other image is the previous one of the batch. Deviation: s is drawn for each image, not for each batch.
    """

    name: Tag[Literal["mixup"]] = field(default="mixup", kw_only=True)
    alpha: float = 1.0
    """Both parameters of the beta distribution, positive."""

    def __post_init__(self) -> None:
        require(self.alpha > 0, f"mix alpha is {self.alpha}; it must be positive")

    draws = 1

    def __call__(self, batch: Batch, noise: Noise, classes: int) -> Batch:
        """The mixed batch, with soft labels; y is the label of the larger share."""
        share = beta(noise[:, 0], self.alpha)
        s = share.to(batch.x.device, batch.x.dtype)[:, None, None, None]
        return _labelled(batch._replace(x=(s * batch.x + (1 - s) * batch.x.roll(1, 0)).clamp(0, 1)), share, classes)


@dataclass(frozen=True)
class CutMix:
    """Replaces a rectangle by that of another image, and mixes the labels by area (arXiv 1905.04899).

    With s ~ Beta(alpha, alpha) the rectangle has sqrt(1 - s) of the image's height and width, is centred at a uniform
    pixel and cut off at the border; the label's weight is the share of the image that is left. The other image is the
    previous one of the batch. Deviation: s and the place are drawn for each image, not for each batch.
    """

    name: Tag[Literal["cutmix"]] = field(default="cutmix", kw_only=True)
    alpha: float = 1.0
    """Both parameters of the beta distribution, positive."""

    def __post_init__(self) -> None:
        require(self.alpha > 0, f"mix alpha is {self.alpha}; it must be positive")

    draws = 3

    def rectangles(self, noise: Noise, height: int, width: int) -> Rectangles:
        """The rectangles that are replaced, within the image."""
        half = 0.5 * (1 - beta(noise[:, 0], self.alpha)).sqrt()
        ends = []
        for place, size in enumerate((height, width)):
            centre = whole(noise[:, 1 + place], torch.full_like(noise[:, 0], size - 1).long())
            reach = (half * size).floor().long()
            ends.append(((centre - reach).clamp_min(0), (centre + reach).clamp_max(size)))
        (top, bottom), (left, right) = ends
        return torch.stack([top, left, bottom - top, right - left], 1)

    def __call__(self, batch: Batch, noise: Noise, classes: int) -> Batch:
        """The mixed batch, with soft labels; y is the label of the larger share."""
        height, width = batch.x.shape[2:]
        rectangles = self.rectangles(noise, height, width)
        share = 1 - rectangles[:, 2:].prod(1).double() / (height * width)
        where = inside(rectangles.to(batch.x.device), height, width)
        return _labelled(batch._replace(x=torch.where(where, batch.x.roll(1, 0), batch.x)), share, classes)


MixConfig = NoMix | Mixup | CutMix


def beta(noise: Float64[Tensor, "batch"], alpha: float) -> Float64[Tensor, "batch"]:
    """Draws of Beta(alpha, alpha) from uniform numbers, by the inverse of its distribution function."""
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, alpha, noise.numpy()))


def _labelled(batch: Batch, share: Float64[Tensor, "batch"], classes: int) -> Batch:
    """The batch with the labels of its images at these shares, and of the previous ones at the rest."""
    s = share.to(batch.x.device, batch.x.dtype)[:, None]
    own, other = batch.y, batch.y.roll(1, 0)
    soft = s * F.one_hot(own, classes) + (1 - s) * F.one_hot(other, classes)
    return batch._replace(y=torch.where(s[:, 0] >= 0.5, own, other), soft=soft)
