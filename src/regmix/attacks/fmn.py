"""FMN: a radius per row that grows and shrinks with the model's answers, and ascent inside it."""

import math
from dataclasses import dataclass

import torch

from regmix.attacks.auto_step import look
from regmix.attacks.malt import dual_power
from regmix.attacks.minimal import Shortest, to_ball, within
from regmix.objectives import dlr, margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L2, Linf, Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Fmn:
    """Fast Minimum-Norm attack: ascends a loss inside a ball whose radius adapts to every row.

        radius e_k = min(e_{k-1}, shortest) (1 - gamma_k) if x + d_k is misclassified, else e_{k-1} (1 + gamma_k)
        d_{k+1}    = clip(P_{e_k}[d_k + alpha_k e_k u]),   u = grad / ||grad||_2, or sign(grad) under L-inf

    The first radius is lead / ||grad margin||_*, the distance to the boundary if the margin were linear. alpha and
    gamma fall along a cosine to a hundredth of their first values.

    Source: arXiv 2102.12827. Deviations: the ascent is on the DLR loss (with the margin, perturbations of a robust
    model were up to 8 % longer on digits); steps are in units of the radius; under L-inf they follow the signs of the
    gradient; the distance is linearised at the image only, and not again until a perturbation is found.
    """

    steps: int = 200
    alpha: float = 2.0
    """First step size, in units of the radius."""
    gamma: float = 0.05
    """By which share of itself a radius changes at first."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return 3 * self.steps

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return within(self.shortest(model, x, y, threat), x, threat)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        steepest = Linf() if isinstance(threat, Linf) else L2()
        delta, best = torch.zeros_like(x), Shortest(x, threat)
        radius = torch.zeros_like(best.length)
        with borrowed(model):
            for step in range(self.steps + 1):
                _, gradient, wrong, lead = look(model, margin if step == 0 else dlr, x + delta, y, y)
                best.offer(delta, wrong)
                if step == self.steps:
                    break
                fall = 0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2
                change = self.gamma * fall
                if step == 0:
                    slope = torch.linalg.vector_norm(gradient.flatten(1), dual_power(threat), dim=1).clamp_min(1e-12)
                    radius = lead.clamp_min(0) / slope
                radius = torch.where(wrong, torch.minimum(radius, best.length) * (1 - change), radius * (1 + change))
                ahead = delta + (self.alpha * fall * radius).view(-1, 1, 1, 1) * steepest.direction(gradient)
                delta = (x + to_ball(ahead, radius, threat)).clamp(0, 1) - x
        return best.delta
