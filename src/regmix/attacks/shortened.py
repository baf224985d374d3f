"""A sequence of attacks with smaller budgets for rows far from the decision boundary."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.base import Attack, fooled, packed, passes
from regmix.attacks.rows import Rows
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Shortened:
    """A first attack on all rows, then full attacks on rows near the decision boundary and brief ones on the others.

    With the lead l(d) = z_y - max_{j != y} z_j at x + d, a row is near if l(d) < near l(0) for the perturbation d of
    the first attack. A row also gets the full attacks if a brief attack reduces its lead further than the first attack
    did, because that suggests masked gradients.
    """

    first: Attack
    brief: tuple[Attack, ...]
    full: tuple[Attack, ...]
    near: float
    """A row is near if its lead falls below this share of its clean lead."""
    together: int = 0
    """How many (image, target) pairs to attack at once; 0 means as many as there are images."""

    @property
    def passes(self) -> int:
        """An estimate that takes an eighth of the rows for near."""
        return sum(map(passes, (self.first, *self.brief))) + sum(map(passes, self.full)) // 8

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        rows = Rows(x)

        def run(attack: Attack, chosen: Tensor) -> None:
            chosen = chosen[torch.isin(chosen, rows.left)]
            if not len(chosen):
                return
            images, labels = x[chosen], y[chosen]
            delta = packed(attack, self.together or len(x))(model, images, labels, threat)
            lead = -margin(model(images + delta), labels)
            rows.settle(chosen, fooled(model, images + delta, -lead, labels), delta, lead)

        with borrowed(model), torch.no_grad():
            clean = -margin(model(x), y)
            run(self.first, rows.left)
            reached = rows.least.clone()
            near = reached < self.near * clean
            for attack in self.brief:
                run(attack, (~near).nonzero()[:, 0])
            near |= rows.least < reached
            for attack in self.full:
                run(attack, near.nonzero()[:, 0])
        return rows.delta
