"""DeepFool: steps to the nearest boundary of the linearised model until the class changes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.base import fooled, likeliest_wrong
from regmix.attacks.malt import linearised
from regmix.attacks.minimal import within
from regmix.attacks.rows import Rows
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L1, Threat
from regmix.types import Images, Labels, Model, UserError


@dataclass(frozen=True)
class DeepFool:
    """Walks to the nearest boundary of the model linearised at the present point, until the point is misclassified.

        d_t     = |z_y - z_t| / ||grad(z_t - z_y)||_*,   t = argmin_t d_t,   v the steepest direction of z_t - z_y
        x_{k+1} = clip(x_k + max((1 + overshoot) d_t, d_t + least) v, 0, 1)

    with ||v|| = 1 in the threat's norm. It is cheap and its perturbations are not the smallest ones. Source: arXiv
    1511.04599. Deviations: `least`, without which float32 may stay at the boundary, and the clipping of every step;
    Foolbox and adversarial-library have both.

    Raises:
        UserError: the threat is L1.
    """

    steps: int = 50
    overshoot: float = 0.02
    least: float = 1e-4
    """How far beyond the boundary a step goes at least, in the threat's norm."""
    candidates: int = 9
    """How many wrong classes to look at, the likeliest at the image."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return self.steps * (2 + 2 * self.candidates)

    def check(self, threat: Threat) -> None:
        if isinstance(threat, L1):
            raise UserError("deepfool is made for L-inf and L2; under L1 use fmn")

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return within(self.shortest(model, x, y, threat), x, threat)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        self.check(threat)
        rows, at = Rows(x), x
        with borrowed(model):
            with torch.no_grad():
                logits = model(x)
                wrong = likeliest_wrong(logits, y, self.candidates)
                state: tuple[Tensor, ...] = x, y, wrong, at
                # A row that is misclassified without a perturbation leaves with 0.
                x, y, wrong, at = rows.leave(fooled(model, x, margin(logits, y), y), torch.zeros_like(x), *state)
            for _ in range(self.steps):
                if not len(x):
                    break
                at = (at + self._step(model, at, y, wrong, threat)).clamp(0, 1)
                with torch.no_grad():
                    out = fooled(model, at, margin(model(at), y), y)
                x, y, wrong, at = rows.leave(out, at - x, x, y, wrong, at)
        return rows.delta

    def _step(self, model: Model, at: Images, y: Labels, wrong: Tensor, threat: Threat) -> Images:
        """The step from `at` beyond the nearest linearised boundary; the image's range is not regarded."""
        nearest, normal = torch.full_like(at[:, 0, 0, 0], float("inf")), torch.zeros_like(at)
        for _, gradient, distance in linearised(model, at, y, wrong, threat):
            nearer = distance.abs() < nearest
            nearest = torch.where(nearer, distance.abs(), nearest)
            normal = torch.where(nearer.view(-1, 1, 1, 1), gradient, normal)
        length = torch.maximum((1 + self.overshoot) * nearest, nearest + self.least)
        # Without a gradient there is no boundary to go to.
        return length.where(nearest.isfinite(), 0).view(-1, 1, 1, 1) * threat.direction(normal)
