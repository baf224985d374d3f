"""APGD: projected gradient ascent that chooses its own step size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regmix.attacks.auto_step import climb
from regmix.attacks.base import Rows, borrowed, likeliest_wrong
from regmix.objectives import cross_entropy, dlr, targeted_dlr
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, Objective


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD: ascent with momentum from a random start on the ball, which halves its step size where it stalls.

        z       = P[d_k + s direction(g_k)]
        d_{k+1} = P[d_k + 0.75 (z - d_k) + 0.25 (d_k - d_{k-1})]

    s begins at 2 eps. At checkpoints, whose distance shrinks from 0.22 to 0.06 of the steps, a row halves s and goes
    back to its best iterate if less than 75 % of its steps since the last one increased the loss, or if neither s nor
    its best loss has changed there. A row leaves when it is misclassified.

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
    seed: int = 0
    """Seeds the starts."""

    @property
    def passes(self) -> int:
        return 3 * self.steps * self.restarts * max(1, self.targets)

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        generator = torch.Generator(x.device).manual_seed(self.seed)
        rows = Rows(x)
        with borrowed(model):
            for objective, target in self._goals(model, x, y):
                left = rows.left
                if len(left):
                    draw = threat.uniform(x, generator)[left]
                    start = draw * (threat.eps / threat.norm(draw).clamp_min(1e-12)).view(-1, 1, 1, 1)
                    climb(model, x[left], y[left], target[left], threat, objective, self.steps, start, rows)
        return rows.delta

    def _goals(self, model: Model, x: Images, y: Labels) -> Iterator[tuple[Objective, Tensor]]:
        for _ in range(self.restarts):
            if not self.targets:
                yield (cross_entropy if self.loss == "ce" else dlr), y
        if self.targets:
            for wrong in likeliest_wrong(model, x, y, self.targets).unbind(1):
                for _ in range(self.restarts):
                    yield targeted_dlr, torch.stack([y, wrong], 1)
