"""Ensembles: sequences of attacks, each on the rows that survived the ones before."""

from dataclasses import dataclass

import torch

from regmix.attacks.apgd import Apgd
from regmix.attacks.attempt import Attempt, attempt
from regmix.attacks.base import Attack, fooled, passes
from regmix.attacks.fab import Fab
from regmix.attacks.malt import Malt
from regmix.attacks.relaxation import Relaxation
from regmix.attacks.rows import Rows
from regmix.attacks.shortened import Shortened
from regmix.attacks.square import Square
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Ensemble:
    """The per-example worst case of several attacks: each attacks the rows that survived the ones before it."""

    stages: tuple[tuple[str, Attack], ...]
    """Names and attacks, the cheapest first."""
    l1: tuple[tuple[str, Attack], ...] = ()
    """The attacks under L1, if they differ."""
    note: str = ""
    """A remark to show beside every number of this ensemble."""

    def under(self, threat: Threat) -> tuple[tuple[str, Attack], ...]:
        """The names and attacks for a threat."""
        return self.l1 if self.l1 and isinstance(threat, L1) else self.stages

    @property
    def passes(self) -> int:
        return sum(passes(attack) for _, attack in self.stages)

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self.attempt(model, x, y, threat).delta

    def attempt(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """A row counts as attacked if at least one of the attacks has attacked it."""
        rows, attacked = Rows(x), torch.zeros_like(y, dtype=torch.bool)
        for _, attack in self.under(threat):
            images, labels = x[rows.left], y[rows.left]
            if not len(images):
                break
            delta, taken, _ = attempt(attack, model, images, labels, threat)
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
"""AutoAttack's standard version (arXiv 2003.01690): APGD-CE, APGD-T and FAB-T with 9 targets, Square with 5000 queries.

Under L1 (arXiv 2103.01208) APGD-CE has 5 restarts and APGD-T 5 targets. With C < 10 classes there are C - 1 targets.
Deviations: the original does not run with fewer than 4 classes. Here the DLR loss divides by z_(1) - z_(3) with 3
classes, and is the margin with 2 classes."""

_BRIEF = Fab(targets=1, steps=15), Square(queries=300)


def _shortened(gradients: tuple[Attack, ...]) -> Shortened:
    """The cheap attacks, and behind them these and FAB-T and Square.

    The limits are read off benchmarks/shortening.py: on four models PMA and MALT's first target broke all images that
    APGD-T broke.
    """
    near, close = ((0.3, attack) for attack in gradients), ((0.05, attack) for attack in (_FAB, _SQUARE))
    return Shortened(Apgd("pm"), _BRIEF, ((0.6, Malt(targets=1, candidates=9)), *near, *close))


_PARTS = "pma, malt-apgd-t, apgd-ce, apgd-t, fab-t, square"
AUTOATTACK_SCREENED = Ensemble(
    ((_PARTS, _shortened((Apgd("ce"), Apgd(targets=9)))),),
    l1=((_PARTS, _shortened((Apgd("ce", restarts=5), Apgd(targets=5)))),),
    note="This is not AutoAttack. All examples get APGD on the margin of probabilities (PMA) and short runs of FAB-T "
    "(1 target x 15 steps) and Square (300 queries). Of an example's lead over the decision boundary, less than 60% "
    "must be left for APGD on MALT's first target, less than 30% for APGD-CE and APGD-T, and less than 5% for FAB-T "
    "and Square in full. An example that a short run brought nearer than PMA did gets all of them.",
)
"""AutoAttack with its dear attacks only on examples near the decision boundary; see `Shortened`."""

_REPEATED = Shortened(Apgd("pm"), (_SQUARE,), tuple((0.0, Square(queries=5000, seed=seed)) for seed in range(1, 10)))
"""Square, and nine times more on the rows that it brought nearer than APGD did: a gradient that leads nowhere."""

STRONGEST = Ensemble(
    (
        ("apgd-ce", Apgd("ce", restarts=5)), ("cr", Relaxation()), ("malt-apgd-t", Malt()), ("fab-t", _FAB),
        ("square", _REPEATED),
    ),
    note="This is not AutoAttack. It gives APGD-CE 5 restarts, orders the targets of APGD-T as MALT does, adds "
    "constraint relaxation, and repeats Square with nine more seeds on examples that it brings nearer than APGD does.",
)  # fmt: skip
"""Five attacks for a verdict that is hard to lower: APGD-CE with 5 restarts, constraint relaxation, MALT's targeted
APGD, FAB-T and Square, for every norm. Rows leave as they break, so the order hardly changes the cost, most of which
the surviving rows have. With at most 10 classes these are AutoAttack's attacks and more, with its random numbers: but
for rounding, it breaks every row that AutoAttack breaks."""
