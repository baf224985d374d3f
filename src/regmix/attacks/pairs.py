"""Ascents on (image, target) pairs: the loop that attacks with several targets or restarts share."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from regmix.attacks.base import Screened
from regmix.attacks.rows import Rows
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.types import Images, Labels, Logits, Model

CLOSE = 0.1
"""Under screening: if a run on rough logits reduces a row's lead below this share of the clean one, a run on exact
logits follows."""

Aims = Callable[[Logits, Rows], Iterator[tuple[Tensor, Tensor, Tensor]]]
"""From the clean logits, for each run: the rows that survive so far, and the objective's target and the seed of the
start for each of them."""
Climb = Callable[[Model, Images, Labels, Tensor, Tensor, Rows], Tensor]
"""One run, (model, images, labels, target, seeds, rows of the images). Rows that are misclassified leave; returns the
smallest lead of the true class's logit for the others."""


def climb_pairs(model: Model, x: Images, y: Labels, aims: Aims, climb: Climb, together: int) -> Images:
    """Runs an ascent on one block of pairs after the other, and returns the perturbations of all rows.

    Args:
        together: how many pairs to attack at once, where exact logits follow rough ones; 0 means as many as images.
    """
    rows, close = Rows(x), []

    def run(model: Model, pairs: Tensor, target: Tensor, seeds: Tensor) -> Tensor:
        """Attacks the pairs and records the result; returns which of them survive close to the boundary."""
        images, labels = x[pairs], y[pairs]
        climbers = Rows(images)
        left = climb(model, images, labels, target, seeds, climbers)
        least = torch.zeros_like(clean[pairs])
        least[climbers.left] = left
        broken = torch.ones_like(pairs, dtype=torch.bool)
        broken[climbers.left] = False
        rows.settle(pairs, broken, climbers.delta, least)
        return ~broken & (least < CLOSE * clean[pairs])

    with borrowed(model):
        with torch.no_grad():
            logits = model(x)
        clean = -margin(logits, y).to(x.dtype)
        for pairs, target, seeds in aims(logits, rows):
            near = run(model, pairs, target, seeds)
            close.append((pairs[near], target[near], seeds[near]))
        if isinstance(model, Screened) and model.repeats:
            for pairs, target, seeds in rows.again(close, together or len(x)):
                run(model.exact, pairs, target, seeds)
    return rows.delta


def targeted(y: Labels, wrong: Tensor, rows: Rows, together: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The rows that survive with one wrong class each, column by column of `wrong`, and the pairs (y, t) as targets."""
    for pairs, aim in rows.pairs(wrong, together or len(y)):
        yield pairs, torch.stack([y[pairs], aim], 1), torch.full_like(pairs, seed)
