"""A cheap attack on all rows, and dearer ones only on rows near the decision boundary."""

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
    """A first attack and brief ones on all rows, then dear attacks, each on the rows that are near enough for it.

    With the lead l(d) = z_y - max_{j != y} z_j at x + d, the share of a row is min_d l(d) / l(0) over the perturbations
    of all attacks so far. A dear attack gets the rows whose share is below its limit. A row also gets all of them if a
    brief attack reduces its lead further than the first attack did, because that suggests masked gradients.
    """

    first: Attack
    brief: tuple[Attack, ...]
    dear: tuple[tuple[float, Attack], ...]
    """Limits of the share, and attacks."""
    together: int = 0
    """How many (image, target) pairs to attack at once; 0 means as many as there are images."""

    @property
    def passes(self) -> int:
        """An estimate that takes the share of the surviving rows to be uniform on [0, 1]."""
        dear = sum(round(limit * passes(attack)) for limit, attack in self.dear)
        return sum(map(passes, (self.first, *self.brief))) + dear

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        rows = Rows(x)

        def run(attack: Attack, chosen: Tensor) -> None:
            chosen = chosen[torch.isin(chosen, rows.left)]
            if not len(chosen):
                return
            images, labels = x[chosen], y[chosen]
            delta = packed(attack, self.together or len(x))(model, images, labels, threat)
            lead = margin(model(images + delta), labels)
            rows.settle(chosen, fooled(model, images + delta, lead, labels), delta, -lead.to(x.dtype))

        with borrowed(model), torch.no_grad():
            clean = -margin(model(x), y).to(x.dtype)
            run(self.first, rows.left)
            reached = rows.least.clone()
            for attack in self.brief:
                run(attack, rows.left)
            masked = rows.least < reached
            for limit, attack in self.dear:
                run(attack, (masked | (rows.least < limit * clean)).nonzero()[:, 0])
        return rows.delta
