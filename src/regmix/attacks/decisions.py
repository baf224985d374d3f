"""Decisions of a model about one image's neighbours, counted and limited."""

import torch
from torch import Tensor

from regmix.threats import Threat
from regmix.types import Images, Model


class Enough(Exception):  # noqa: N818  it is no error
    """The queries are spent, or a misclassified image within eps is found."""


class Decisions:
    """Asks a model whether images are misclassified, at most `most` times with the image itself; remembers the nearest.

    Attributes:
        used: queries so far; a batch that would exceed the limit is not asked.
        nearest: the misclassified image nearest to x so far, [C, H, W]; None: none was seen.
        success: the query, counted from 1, that was misclassified within eps first; None: none was.
    """

    def __init__(self, model: Model, x: Tensor, label: Tensor, threat: Threat, most: int) -> None:
        self._model, self._x, self._label, self._threat, self._most = model, x, label, threat, most
        self.used = 1
        self.nearest: Tensor | None = None
        self.success: int | None = None
        self._length = float("inf")

    @property
    def left(self) -> int:
        """Queries that may still be asked."""
        return self._most - self.used

    def __call__(self, images: Images) -> Tensor:
        """Which images are misclassified, bool [B]. Raises Enough if it may not ask, or need not ask further."""
        if len(images) > self.left:
            raise Enough
        wrong = self._model(images).argmax(1) != self._label
        before, self.used = self.used, self.used + len(images)
        self._offer(images, wrong, before)
        return wrong

    def known(self, images: Images) -> None:
        """Images that are known to be misclassified, whose queries count elsewhere."""
        if len(images):
            self._offer(images, torch.ones(len(images), dtype=torch.bool, device=images.device), None)

    def _offer(self, images: Images, wrong: Tensor, before: int | None) -> None:
        """before: the queries before these images; None: they took none."""
        lengths = torch.where(wrong, self._threat.norm(images - self._x), float("inf"))
        place = int(lengths.argmin())
        if float(lengths[place]) < self._length:
            self.nearest, self._length = images[place].clone(), float(lengths[place])
        if self._length <= self._threat.eps:
            first = int((lengths <= self._threat.eps).nonzero()[0])
            self.success = self.used if before is None else before + 1 + first
            raise Enough
