"""Ensembles: attacks that take on, one after the other, what the ones before have left."""

from dataclasses import dataclass

import torch

from regmix.attacks.apgd import Apgd
from regmix.attacks.attempt import Attempt, attempt
from regmix.attacks.base import Attack, fooled, passes
from regmix.attacks.fab import Fab
from regmix.attacks.rows import Rows
from regmix.attacks.shortened import Shortened
from regmix.attacks.square import Square
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Ensemble:
    """The per-example worst case of several attacks: each one gets the rows that survived those before it."""

    stages: tuple[tuple[str, Attack], ...]
    """Names and attacks, the cheapest first."""
    l1: tuple[tuple[str, Attack], ...] = ()
    """The attacks under L1, if they are others."""
    note: str = ""
    """What stands beside every number that it gives."""

    def under(self, threat: Threat) -> tuple[tuple[str, Attack], ...]:
        """The names and attacks for a threat."""
        return self.l1 if self.l1 and isinstance(threat, L1) else self.stages

    @property
    def passes(self) -> int:
        return sum(passes(attack) for _, attack in self.stages)

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self.attempt(model, x, y, threat).delta

    def attempt(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """A row is attacked if one of the attacks has taken it on."""
        rows, attacked = Rows(x), torch.zeros_like(y, dtype=torch.bool)
        for _, attack in self.under(threat):
            images, labels = x[rows.left], y[rows.left]
            if not len(images):
                break
            delta, taken = attempt(attack, model, images, labels, threat)
            attacked[rows.left] |= taken
            with borrowed(model), torch.no_grad():
                lead = margin(model(images + delta), labels)
                rows.leave(fooled(model, images + delta, lead, labels), delta)
        return Attempt(rows.delta, attacked)


_FAB, _SQUARE = Fab(targets=9), Square(queries=5000)
AUTOATTACK = Ensemble(
    (("apgd-ce", Apgd("ce")), ("apgd-t", Apgd(targets=9)), ("fab-t", _FAB), ("square", _SQUARE)),
    l1=(("apgd-ce", Apgd("ce", restarts=5)), ("apgd-t", Apgd(targets=5)), ("fab-t", _FAB), ("square", _SQUARE)),
)
"""AutoAttack's standard version (arXiv 2003.01690): APGD-CE, then APGD-T and FAB-T with 9 targets, then Square with
5000 queries; under L1 (arXiv 2103.01208) APGD-CE has 5 restarts and APGD-T 5 targets. With C < 10 classes there are
C - 1 targets; with 3 classes the DLR loss has z_(1) - z_(3) below the line, and with 2 classes it is the margin (the
original does not run there)."""

_BRIEF = Fab(targets=3, steps=15), Square(queries=300)
AUTOATTACK_SCREENED = Ensemble(
    (
        ("apgd-ce", Apgd("ce")),
        ("apgd-t, fab-t, square", Shortened(Apgd(targets=9), _BRIEF, (_FAB, _SQUARE), near=0.1)),
    ),
    l1=(
        ("apgd-ce", Apgd("ce", restarts=5)),
        ("apgd-t, fab-t, square", Shortened(Apgd(targets=5), _BRIEF, (_FAB, _SQUARE), near=0.1)),
    ),
    note="Not AutoAttack: FAB-T and Square run in full (9 targets x 100 steps, 5000 queries) only where APGD-T left "
    "less than 10% of an example's lead, or Square came nearer; elsewhere with 3 targets x 15 steps and 300 queries. "
    "Measured on 700 CIFAR-10 images (two models, L-inf): its verdict differed from AutoAttack's on none.",
)
"""AutoAttack with less of FAB-T and Square where no boundary is near."""
