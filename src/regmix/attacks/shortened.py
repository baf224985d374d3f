"""AutoAttack's later attacks with small budgets where no boundary is near."""

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
    """A first attack, after which only rows near a boundary get the full attacks, and the others brief ones.

    With the lead l(d) = z_y - max_{j != y} z_j at x + d, a row that the first attack leaves with d is near if
    l(d) < near l(0). A row that a brief attack brings nearer than the first one did gets the full attacks after all:
    that speaks for masked gradients.
    """

    first: Attack
    brief: tuple[Attack, ...]
    full: tuple[Attack, ...]
    near: float
    """Share of its lead below which a row is near."""
    together: int = 0
    """Pairs of an image and a target that may be attacked at once; 0 means as many as there are images."""

    @property
    def passes(self) -> int:
        """An eighth of the rows is taken to be near."""
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
