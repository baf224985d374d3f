"""Adversarial images that were made elsewhere, as an attack."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.attempt import Attempt
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True, eq=False)
class Given:
    """The images of a file: the evaluation says which rows of the test set a batch has (`at`).

    They must lie in the threat set, up to rounding, which is checked when they are read; what rounding has left outside
    is brought back to it.
    """

    images: Tensor
    """[K, C, H, W], uint8 or floating point in [0, 1]."""
    row: Tensor
    """For every image of the test set the row among `images`, int64 [N]; -1 where there is none."""
    positions: Tensor | None = None
    """Which images of the test set the batch has."""

    def at(self, positions: Sequence[int]) -> "Given":
        """The attack on the images of the test set at these positions."""
        return Given(self.images, self.row, torch.tensor(positions))

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self.attempt(model, x, y, threat).delta

    def attempt(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """A row that the file has no image for is not attacked."""
        assert self.positions is not None, "at() says which images the batch has"
        rows = self.row[self.positions]
        there = rows >= 0
        delta = torch.zeros_like(x)
        taken = self.images[rows[there]]
        scaled = taken.to(x.device).to(x.dtype) / (255 if taken.dtype == torch.uint8 else 1)
        there = there.to(x.device)
        delta[there] = threat.project(scaled - x[there], x[there])
        return Attempt(delta, there)
