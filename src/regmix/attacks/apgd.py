"""APGD: projected gradient ascent with an adaptive step size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regmix.attacks.auto_step import climb
from regmix.attacks.base import Screened, likeliest_wrong
from regmix.attacks.rows import Rows
from regmix.attacks.sparse_step import climb_sparsely
from regmix.objectives import cross_entropy, dlr, margin, targeted_dlr
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, Threat
from regmix.types import Images, Labels, Logits, Model, Objective

CLOSE = 0.1
"""Under screening: if a run on rough logits reduces a row's lead below this share of the clean one, a run on exact
logits follows."""


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

    loss: Literal["ce", "dlr"] = "ce"
    """Cross-entropy, or the difference of logits ratio. Ignored if there are targets."""
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
        generator = torch.Generator(x.device).manual_seed(self.seed)
        rows, close = Rows(x), []

        def run(model: Model, pairs: Tensor, target: Tensor) -> Tensor:
            """Attacks the pairs and records the result; returns which of them survive close to the boundary."""
            images, labels, objective = x[pairs], y[pairs], self._objective()
            climbers = Rows(images)
            if isinstance(threat, L1):
                start = torch.empty_like(images).normal_(generator=generator)
                left = climb_sparsely(model, images, labels, target, threat, objective, self.steps, start, climbers)
            else:
                draw = threat.uniform(images, generator)
                start = draw * (threat.eps / threat.norm(draw).clamp_min(1e-12)).view(-1, 1, 1, 1)
                left = climb(model, images, labels, target, threat, objective, self.steps, start, climbers)
            least = torch.zeros_like(clean[pairs])
            least[climbers.left] = left
            broken = torch.ones_like(pairs, dtype=torch.bool)
            broken[climbers.left] = False
            rows.settle(pairs, broken, climbers.delta, least)
            return ~broken & (least < CLOSE * clean[pairs])

        with borrowed(model):
            with torch.no_grad():
                logits = model(x)
            clean = -margin(logits, y)
            for pairs, target in self._aims(logits, y, rows):
                near = run(model, pairs, target)
                close.append((pairs[near], target[near]))
            if isinstance(model, Screened):
                for pairs, target in rows.again(close, self.together or len(x)):
                    run(model.exact, pairs, target)
        return rows.delta

    def _objective(self) -> Objective:
        return targeted_dlr if self.targets else cross_entropy if self.loss == "ce" else dlr

    def _aims(self, logits: Logits, y: Labels, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """For each run: the rows that survive so far, and the objective's target for each of them."""
        wrong = likeliest_wrong(logits, y, self.targets)
        for _ in range(self.restarts):
            if self.targets:
                for pairs, aim in rows.pairs(wrong, self.together or len(y)):
                    yield pairs, torch.stack([y[pairs], aim], 1)
            elif len(rows.left):
                yield rows.left, y[rows.left]
