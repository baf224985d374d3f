"""APGD: projected gradient ascent with an adaptive step size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regmix.attacks.auto_step import climb
from regmix.attacks.base import likeliest_wrong
from regmix.attacks.pairs import climb_pairs, targeted
from regmix.attacks.pma import probability_margin
from regmix.attacks.rows import Rows
from regmix.attacks.sparse_step import climb_sparsely
from regmix.draws import PerImage, normal, restarted
from regmix.objectives import cross_entropy, dlr, margin, targeted_dlr
from regmix.threats import L1, Threat
from regmix.types import Images, Labels, Logits, Model, Objective

LOSSES: dict[str, Objective] = {"ce": cross_entropy, "dlr": dlr, "pm": probability_margin}


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD: ascent with momentum from a random start on the sphere; it halves the step size when it stalls.

        z       = P[d_k + s direction(g_k)]
        d_{k+1} = P[d_k + 0.75 (z - d_k) + 0.25 (d_k - d_{k-1})]

    The step size s begins at 2 eps. The interval between checkpoints shrinks from 0.22 to 0.06 of the steps. At a
    checkpoint, a row halves s and returns to its best iterate if at most 75 % of its steps since the last checkpoint
    increased the loss, or if s was not halved there and the best loss has not increased since. The attack on a row
    ends when the row is misclassified. L1 uses another ascent, `climb_sparsely`.

    Source: arXiv 2003.01690 and its public code (AutoAttack). Deviations: for L2 the first perturbation has length
    eps before it is clipped to the image's range; the first checkpoint also counts the first step's increase.
    """

    loss: Literal["ce", "dlr", "pm"] = "ce"
    """Cross-entropy, the difference of logits ratio, or the margin of probabilities (PMA). Ignored if there are
    targets."""
    targets: int = 0
    """How many wrong classes to target with the targeted DLR loss, the likeliest first; at most C - 1 of C classes are
    used. 0 means untargeted."""
    steps: int = 100
    restarts: int = 1
    together: int = 0
    """How many (image, target) pairs to attack at once; 0 means as many as there are images."""
    seed: int = 0
    """Seed of the random starts."""

    @property
    def climbs(self) -> Objective:
        return cross_entropy if self.loss == "ce" and not self.targets else margin

    @property
    def passes(self) -> int:
        return 3 * self.steps * self.restarts * max(1, self.targets)

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        objective = targeted_dlr if self.targets else LOSSES[self.loss]

        def aims(logits: Logits, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            wrong = self.wrong(model, x, y, logits, threat) if self.targets else None
            for restart in range(self.restarts):
                seed = restarted(self.seed, restart)
                if wrong is not None:
                    yield from targeted(y, wrong, rows, self.together, seed)
                elif len(rows.left):
                    yield rows.left, y[rows.left], torch.full_like(rows.left, seed)

        def climb_from_the_sphere(
            model: Model, x: Images, y: Labels, target: Tensor, seeds: Tensor, rows: Rows
        ) -> Tensor:
            draws = PerImage(x, seeds, target[:, 1] if self.targets else None)
            if isinstance(threat, L1):
                start = normal(x, draws)
                return climb_sparsely(model, x, y, target, threat, objective, self.steps, start, rows)
            draw = threat.uniform(x, draws)
            start = draw * (threat.eps / threat.norm(draw).clamp_min(1e-12)).view(-1, 1, 1, 1)
            return climb(model, x, y, target, threat, objective, self.steps, start, rows)

        return climb_pairs(model, x, y, aims, climb_from_the_sphere, self.together)

    def wrong(self, model: Model, x: Images, y: Labels, logits: Logits, threat: Threat) -> Tensor:
        """The classes to target, int [B, targets], in their order; `logits` are those of x."""
        return likeliest_wrong(logits, y, self.targets)
