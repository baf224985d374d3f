"""What an attack is, how it borrows a model without leaving traces, and how its rows leave when they are broken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

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


@contextmanager
def borrowed(model: Model) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside the block; every mode and flag is put back after it.

    A train-mode attack would be weaker and would silently change BatchNorm's statistics.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


class Screened:
    """A model whose answers come fast and roughly, and which is asked exactly before an example counts as broken.

    Attacks call it as they call any model and get rough logits. `slack` is how far the rough margin may lie below the
    boundary for the exact model to be asked.
    """

    def __init__(self, rough: Model, exact: Model, slack: float) -> None:
        self.rough, self.exact, self.slack = rough, exact, slack

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


class Rows:
    """The rows of a batch that an attack still works on; broken ones leave with the perturbation that broke them."""

    def __init__(self, x: Images) -> None:
        self.left = torch.arange(len(x), device=x.device)
        self.delta = torch.zeros_like(x)

    def leave(self, out: Bool[Tensor, "rows"], delta: Images, *state: Tensor) -> tuple[Tensor, ...]:
        """Writes down the perturbations of the rows that leave; returns the state without these rows."""
        if not out.any():
            return state
        self.delta[self.left[out]] = delta[out]
        self.left = self.left[~out]
        return tuple(values[~out] for values in state)

    def pairs(self, wrong: Int[Tensor, "batch targets"], together: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(row, target) pairs of the rows that are left: those with the first target, then the other targets.

        As many of the others at once as make `together` pairs: most rows that fall at all fall for the first.
        """
        column = 0
        while column < wrong.shape[1] and len(self.left):
            count = max(1, together // len(self.left)) if column else 1
            block = wrong[self.left, column : column + count]
            yield self.left.repeat_interleave(block.shape[1]), block.flatten()
            column += count

    def settle(self, pairs: Tensor, broken: Bool[Tensor, "pairs"], delta: Images) -> None:
        """Writes down the perturbations of pairs of these rows; rows with a broken pair leave with its perturbation."""
        self.delta[pairs] = delta
        # The last one written stays: the one with the likeliest target.
        for pair in broken.nonzero()[:, 0].flip(0).tolist():
            self.delta[pairs[pair]] = delta[pair]
        self.left = self.left[~torch.isin(self.left, pairs[broken])]


@torch.no_grad()
def likeliest_wrong(model: Model, x: Images, y: Labels, most: int) -> Tensor:
    """The wrong classes of every image, int [B, min(most, C - 1)], from the largest logit on."""
    logits = model(x).scatter(1, y[:, None], float("-inf"))
    return logits.topk(min(most, logits.shape[1] - 1), 1).indices
