"""The protocol of an attack, and models that answer roughly first (screening)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.objectives import margin
from regmix.threats import Threat
from regmix.types import Images, Labels, Logits, Model, PerExample


class Attack(Protocol):
    """Maps (model, images [B, C, H, W] in [0, 1], class indices [B], threat) to perturbations within the threat set."""

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images: ...


def passes(attack: Attack) -> int:
    """Roughly how many forward passes an attack costs per surviving image; a backward pass counts as two.

    It serves to estimate the remaining time. An attack without an attribute `passes` counts as 1.
    """
    return getattr(attack, "passes", 1)


def packed(attack: Attack, together: int) -> Attack:
    """The attack with `together` (image, target) pairs at once, if it attacks pairs; otherwise the attack itself."""
    return replace(attack, together=together) if hasattr(attack, "together") else attack  # type: ignore[type-var]


class Nearby(Protocol):
    """A model that computes logits incrementally for images that differ from current ones in one square."""

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        """The logits of `trial`, whose rows differ from the current `images` in one square of `side` pixels at most."""
        ...

    def keep(self, rows: Bool[Tensor, "batch"]) -> None:
        """Makes these rows of the last trial the current images."""
        ...

    def leave(self, out: Bool[Tensor, "batch"]) -> None:
        """Drops these rows."""
        ...


class Whole:
    """The `Nearby` of a model that computes every image as a whole."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        return self._model(trial)

    def keep(self, rows: Bool[Tensor, "batch"]) -> None: ...
    def leave(self, out: Bool[Tensor, "batch"]) -> None: ...


@dataclass(frozen=True, eq=False)
class Screened:
    """A fast model with rough logits, and the exact model, which confirms every misclassification.

    Attacks call it like any model and get rough logits. An example counts as broken only if the exact model confirms
    it; the exact model is called where max_{c != y} z_c - z_y of the rough logits is at least -`slack`.
    """

    rough: Model
    exact: Model
    slack: float
    incremental: Callable[[], Nearby] | None = None
    """Makes a `Nearby` of the rough model; None: it computes every image as a whole."""
    repeats: bool = True
    """A search that ends near the decision boundary is repeated on the exact model. False where both differ by the
    rounding of float32 alone."""

    def nearby(self) -> Nearby:
        """A `Nearby` of the rough model."""
        return Whole(self.rough) if self.incremental is None else self.incremental()

    def __call__(self, images: Images) -> Logits:
        return self.rough(images)


@torch.no_grad()
def fooled(model: Model, images: Images, lead: PerExample, y: Labels) -> Bool[Tensor, "batch"]:
    """Which images are misclassified, given `lead` = max_{c != y} z_c - z_y. NaN counts as misclassified.

    A tie does not: the evaluator goes by argmax, which may well be the label, and then an attack that stopped there
    would have stopped for nothing.
    """
    if not isinstance(model, Screened):
        return ~(lead <= 0)
    wrong = ~(lead < -model.slack)
    if wrong.any():
        wrong[wrong.clone()] = ~(margin(model.exact(images[wrong]), y[wrong]) <= 0)
    return wrong


def likeliest_wrong(logits: Logits, y: Labels, most: int) -> Tensor:
    """The wrong classes of every image, int [B, min(most, C - 1)], in descending order of their logits."""
    logits = logits.scatter(1, y[:, None], float("-inf"))
    return logits.topk(min(most, logits.shape[1] - 1), 1).indices
