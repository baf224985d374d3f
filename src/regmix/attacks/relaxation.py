"""Constraint relaxation: ascents that leave the ball, come back, and start again from inside it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from regmix.attacks.auto_step import look, where
from regmix.attacks.base import likeliest_wrong
from regmix.attacks.pairs import climb_pairs, targeted
from regmix.attacks.rows import Rows
from regmix.draws import PerImage
from regmix.objectives import margin, precise
from regmix.threats import Linf, Threat
from regmix.types import Images, Labels, Logits, Model, PerExample

T = TypeVar("T", bound=Threat)


@dataclass(frozen=True)
class Relaxation:
    """Targeted ascents in cycles of a loose, the exact and a tight ball, for one wrong class t at a time.

        cycle c = 1, 2, ...:   s = max(2^-c, least)
        loose steps:           d <- P_{eps (1 + s)}[d + eps s direction(grad (z_t - z_y))]
        the other steps:       d <- P_eps[the same]
        at the end:            d <- P_eps[P_{eps (1 - s)}[d] + u],   u uniform in the ball of radius eps s

    It starts from a uniform random perturbation. The attack on a row ends when the row is misclassified within eps.

    Source: the public code of the constraint-relaxation attack: three targets, 5 cycles of 30 steps, the three radii
    and the step size. Not known: how many of the 30 steps are loose, and from which c it counts; 2^-c falls below
    `least` within 5 cycles only if it counts from 1. L2 and L1 are an extension: steps, noise and projections of that
    norm.
    """

    targets: int = 3
    """How many wrong classes to target, the likeliest first; at most C - 1 of C classes are used."""
    cycles: int = 5
    steps: int = 30
    """Of each cycle."""
    loose: int = 15
    """How many of them are in the loose ball."""
    least: float = 0.05
    """Smallest s: the least step size, and the least share of eps by which the radius changes."""
    together: int = 0
    """How many (image, target) pairs to attack at once; 0 means as many as there are images."""
    seed: int = 0
    """Seed of the starts and of the noise."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return 3 * self.steps * self.cycles * self.targets

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        assert 0 <= self.loose < self.steps, "a cycle has a step in the exact ball"

        def aims(logits: Logits, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            return targeted(y, likeliest_wrong(logits, y, self.targets), rows, self.together, self.seed)

        def climb(model: Model, x: Images, y: Labels, target: Tensor, seeds: Tensor, rows: Rows) -> Tensor:
            return self._climb(model, x, y, target, threat, rows, PerImage(x, seeds, target[:, 1]))

        return climb_pairs(model, x, y, aims, climb, self.together)

    def _climb(
        self, model: Model, x: Images, y: Labels, target: Tensor, threat: Threat, rows: Rows, draws: PerImage
    ) -> Tensor:
        delta = threat.project(threat.uniform(x, draws), x)
        best, best_value = delta, x.new_full((len(x),), float("-inf"))
        least = -best_value
        for turn in range(self.cycles * self.steps + 1):
            value, gradient, out, lead = look(model, _towards, x + delta, y, target)
            cycle, step = divmod(turn, self.steps)
            # A step of the loose ball has led outside the threat set.
            if step == 0 or step > self.loose:
                better = value > best_value
                best, best_value = where(better, delta, best), torch.where(better, value, best_value)
                least = torch.minimum(least, lead)
                x, y, target, delta, gradient, best, best_value, least, draws.keys = rows.leave(
                    out, delta, x, y, target, delta, gradient, best, best_value, least, draws.keys
                )
                if not len(x):
                    return least
            share = max(2.0 ** -(cycle + 1), self.least)
            ball = _times(threat, 1 + share) if step < self.loose else threat
            delta = ball.project(delta + share * threat.eps * threat.direction(gradient, x + delta), x)
            if step == self.steps - 1:
                noise = _times(threat, share).uniform(x, draws)
                delta = threat.project(_times(threat, 1 - share).project(delta, x) + noise, x)
        rows.delta[rows.left] = best
        return least


def _towards(logits: Logits, target: Tensor) -> PerExample:
    """z_t - z_y for target = (y, t), int [B, 2]."""
    picked = precise(logits).gather(1, target)
    return picked[:, 1] - picked[:, 0]


def _times(threat: T, factor: float) -> T:
    """The same threat with another radius; L-inf's is at most 1."""
    eps = threat.eps * factor
    return replace(threat, eps=min(eps, 1.0) if isinstance(threat, Linf) else eps)  # type: ignore[type-var]
