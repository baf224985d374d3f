"""Counts what passes through a model: images forward, and gradients of images back."""

from dataclasses import dataclass, replace

from jaxtyping import Bool
from torch import Tensor

from regmix.attacks.base import Nearby, Screened
from regmix.types import Images, Logits, Model


@dataclass
class Counter:
    """How many images have passed forward, and for how many of them gradients have passed back."""

    forward: int = 0
    backward: int = 0

    def watch(self, logits: object) -> None:
        """Counts the rows of logits now, and once more whenever a gradient with respect to them is computed."""
        if isinstance(logits, Tensor) and logits.ndim:
            self.forward += len(logits)
            if logits.requires_grad:
                logits.register_hook(self._back)  # type: ignore[no-untyped-call]

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def counted(model: Model, counter: Counter) -> Model:
    """The model, whose passes are counted. A model that screens is counted in both of its parts."""
    if isinstance(model, Screened):
        return replace(
            model, rough=counted(model.rough, counter), exact=counted(model.exact, counter),
            incremental=lambda: _CountedNearby(model.nearby(), counter),
        )  # fmt: skip

    def logits(images: Images) -> Logits:
        output = model(images)
        counter.watch(output)
        return output

    return logits


class _CountedNearby:
    """A `Nearby` that counts a trial as one pass per image, although only a part of it is computed."""

    def __init__(self, near: Nearby, counter: Counter) -> None:
        self._near, self._counter = near, counter

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        output = self._near(images, trial, side)
        self._counter.watch(output)
        return output

    def keep(self, rows: Bool[Tensor, "batch"]) -> None:
        self._near.keep(rows)

    def leave(self, out: Bool[Tensor, "batch"]) -> None:
        self._near.leave(out)
