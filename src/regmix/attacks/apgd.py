"""APGD: projected gradient ascent that chooses its own step size."""

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
"""Where a rough run kept less than this share of a row's lead over the boundary, an exact one follows."""


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD: ascent with momentum from a random start on the ball, which halves its step size where it stalls.

        z       = P[d_k + s direction(g_k)]
        d_{k+1} = P[d_k + 0.75 (z - d_k) + 0.25 (d_k - d_{k-1})]

    s begins at 2 eps. At checkpoints, whose distance shrinks from 0.22 to 0.06 of the steps, a row halves s and goes
    back to its best iterate if less than 75 % of its steps since the last one increased the loss, or if neither s nor
    its best loss has changed there. A row leaves when it is misclassified. L1 has an ascent of its own
    (`climb_sparsely`).

    Source: arXiv 2003.01690 and its public code (AutoAttack). Deviations: for L2 the first perturbation is of length
    eps before it is clipped to the image's range; the first checkpoint counts the first step's increase over the
    start.
    """

    loss: Literal["ce", "dlr"] = "ce"
    """Cross-entropy, or the difference of logits ratio."""
    targets: int = 0
    """How many wrong classes to aim at, one after the other, from the likeliest on, with the targeted DLR loss (0: no
    target). A model with C classes has C - 1."""
    steps: int = 100
    restarts: int = 1
    together: int = 0
    """Pairs of an image and a target that may be attacked at once; 0 means as many as there are images."""
    seed: int = 0
    """Seeds the starts."""

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
            """Settles the pairs; returns which of them are left, but close."""
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
        """Rows that are left and what the objective is told about them, as often as they are to be attacked."""
        wrong = likeliest_wrong(logits, y, self.targets)
        for _ in range(self.restarts):
            if self.targets:
                for pairs, aim in rows.pairs(wrong, self.together or len(y)):
                    yield pairs, torch.stack([y[pairs], aim], 1)
            elif len(rows.left):
                yield rows.left, y[rows.left]
