"""What an attack is, and how it borrows a model without leaving traces."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.objectives import margin
from regmix.threats import Threat
from regmix.types import Images, Labels, Logits, Model, PerExample


class Attack(Protocol):
    """(model, images in [0, 1], class indices, threat) to perturbations delta within the threat set."""

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images: ...


def passes(attack: Attack) -> int:
    """About how many passes through the network an attack takes per image that survives; a backward one counts as two.

    For estimates of the time that is left; 1 for an attack that does not say.
    """
    return getattr(attack, "passes", 1)


def packed(attack: Attack, together: int) -> Attack:
    """The attack with so many pairs of an image and a target at once, if it is one that attacks pairs."""
    return replace(attack, together=together) if hasattr(attack, "together") else attack  # type: ignore[type-var]


class Nearby(Protocol):
    """Gives the logits of images that differ from known ones in one square, and is told which of them become known."""

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        """The logits of `trial`; its rows differ from the known `images` in one square of `side` pixels at most."""
        ...

    def keep(self, rows: Bool[Tensor, "batch"]) -> None:
        """These rows of the last trial are known from now on, in place of the former ones."""
        ...

    def leave(self, out: Bool[Tensor, "batch"]) -> None:
        """These rows will not be asked about again."""
        ...


class Whole:
    """A model that is asked about images near to known ones as about any others."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, images: Images, trial: Images, side: int) -> Logits:
        return self._model(trial)

    def keep(self, rows: Bool[Tensor, "batch"]) -> None: ...
    def leave(self, out: Bool[Tensor, "batch"]) -> None: ...


class Screened:
    """A model whose answers come fast and roughly, and which is asked exactly before an example counts as broken.

    Attacks call it as they call any model and get rough logits. `slack` is how far the rough margin may lie below the
    boundary for the exact model to be asked. `nearby` makes something that gives the rough logits of images near to
    known ones for less.
    """

    def __init__(self, rough: Model, exact: Model, slack: float, nearby: Callable[[], Nearby] | None = None) -> None:
        self.rough, self.exact, self.slack = rough, exact, slack
        self.nearby: Callable[[], Nearby] = nearby or (lambda: Whole(self.rough))

    def __call__(self, images: Images) -> Logits:
        return self.rough(images)


@torch.no_grad()
def fooled(model: Model, images: Images, lead: PerExample, y: Labels) -> Bool[Tensor, "batch"]:
    """Which images are misclassified, given their margin; a tie and NaN count as misclassified."""
    if not isinstance(model, Screened):
        return ~(lead < 0)
    wrong = ~(lead < -model.slack)
    if wrong.any():
        wrong[wrong.clone()] = ~(margin(model.exact(images[wrong]), y[wrong]) < 0)
    return wrong


def likeliest_wrong(logits: Logits, y: Labels, most: int) -> Tensor:
    """The wrong classes of every image, int [B, min(most, C - 1)], from the largest logit on."""
    logits = logits.scatter(1, y[:, None], float("-inf"))
    return logits.topk(min(most, logits.shape[1] - 1), 1).indices
