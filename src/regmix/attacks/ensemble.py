"""Ensembles: attacks that take on, one after the other, what the ones before have left."""

from dataclasses import dataclass

import torch

from regmix.attacks.apgd import Apgd
from regmix.attacks.base import Attack, borrowed, fooled, passes
from regmix.attacks.fab import Fab
from regmix.attacks.rows import Rows
from regmix.attacks.shortened import Shortened
from regmix.attacks.square import Square
from regmix.objectives import margin
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Ensemble:
    """The per-example worst case of several attacks: each one gets the rows that survived those before it."""

    stages: tuple[tuple[str, Attack], ...]
    """Names and attacks, the cheapest first."""
    note: str = ""
    """What stands beside every number that it gives."""

    @property
    def passes(self) -> int:
        return sum(passes(attack) for _, attack in self.stages)

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        rows = Rows(x)
        for _, attack in self.stages:
            images, labels = x[rows.left], y[rows.left]
            if not len(images):
                break
            delta = attack(model, images, labels, threat)
            with borrowed(model), torch.no_grad():
                lead = margin(model(images + delta), labels)
                rows.leave(fooled(model, images + delta, lead, labels), delta)
        return rows.delta


_FULL = Fab(targets=9), Square(queries=5000)
AUTOATTACK = Ensemble((("apgd-ce", Apgd("ce")), ("apgd-t", Apgd(targets=9)), ("fab-t", _FULL[0]), ("square", _FULL[1])))
"""AutoAttack's standard version (arXiv 2003.01690): APGD-CE, then APGD-T and FAB-T with 9 targets, then Square with
5000 queries. With C < 10 classes there are C - 1 targets; with 3 classes the DLR loss has z_(1) - z_(3) below the
line, and with 2 classes it is the margin (the original does not run there)."""

_SHORTENED = Shortened(Apgd(targets=9), (Fab(targets=3, steps=15), Square(queries=300)), _FULL, near=0.2)
AUTOATTACK_SCREENED = Ensemble(
    (("apgd-ce", Apgd("ce")), ("apgd-t, fab-t, square", _SHORTENED)),
    note="Not AutoAttack: FAB-T and Square run in full (9 targets x 100 steps, 5000 queries) only where APGD-T left "
    "less than 20% of an example's lead, or Square came nearer; elsewhere with 3 targets x 15 steps and 300 queries.",
)
"""AutoAttack with less of FAB-T and Square where no boundary is near."""
