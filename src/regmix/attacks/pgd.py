"""PGD."""

from dataclasses import dataclass

import torch

from regmix.attacks.ascent import ascend
from regmix.attacks.base import fooled
from regmix.attacks.rows import Rows
from regmix.draws import PerImage
from regmix.objectives import cross_entropy, margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Pgd:
    """Projected gradient ascent on cross-entropy from a uniform random start (arXiv 1706.06083).

    It returns the last iterate, as the papers that report PGD-10/20/50 do. With restarts it returns the last iterate
    of the first restart in which the row is misclassified.
    """

    steps: int = 10
    step_size: float = 0.25
    """In units of eps: 0.25 is the usual 2/255 at eps = 8/255."""
    restarts: int = 1
    seed: int = 0
    """Seed of the random starts. The same seed gives an image the same start, whatever else is in the batch."""

    climbs = staticmethod(cross_entropy)

    @property
    def passes(self) -> int:
        return 3 * self.steps * self.restarts

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        rows, draws = Rows(x), PerImage(x, self.seed)
        with borrowed(model):
            for restart in range(self.restarts):
                start = threat.project(threat.uniform(x, draws), x)[rows.left]
                images, labels = x[rows.left], y[rows.left]
                delta = ascend(
                    model, images, labels, threat, start=start, steps=self.steps, step_size=self.step_size * threat.eps
                ).delta
                if restart == self.restarts - 1:
                    rows.delta[rows.left] = delta
                    break
                with torch.no_grad():
                    rows.leave(fooled(model, images + delta, margin(model(images + delta), labels), labels), delta)
                if not len(rows.left):
                    break
        return rows.delta
