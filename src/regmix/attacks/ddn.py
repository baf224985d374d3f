"""DDN: gradient steps whose direction and length are decoupled."""

import math
from dataclasses import dataclass

import torch

from regmix.attacks.auto_step import look
from regmix.attacks.minimal import Shortest, within
from regmix.objectives import cross_entropy, margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import L2, Threat
from regmix.types import Images, Labels, Model, UserError


@dataclass(frozen=True)
class Ddn:
    """Decoupled Direction and Norm: gradient steps on cross-entropy, rescaled to a length that adapts to every row.

        e_{k+1} = e_k (1 - gamma) if x + d_k is misclassified, else e_k (1 + gamma)
        d'      = d_k + alpha_k grad / ||grad||_2,   d_{k+1} = clip(e_{k+1} d' / ||d'||_2)

    alpha falls along a cosine to a hundredth of its first value. Source: arXiv 1811.09600. Deviation: perturbations are
    not rounded to grey levels.

    Raises:
        UserError: the threat is not L2.
    """

    steps: int = 200
    alpha: float = 1.0
    """First step size, in pixel units."""
    gamma: float = 0.05
    """By which share of itself a length changes in a step."""
    first: float = 1.0
    """First length, in pixel units."""

    climbs = staticmethod(margin)

    @property
    def passes(self) -> int:
        return 3 * self.steps

    def check(self, threat: Threat) -> None:
        """Raises UserError for a threat that is not L2."""
        if not isinstance(threat, L2):
            raise UserError("ddn minimises the L2 length of the perturbation; give an L2 threat, or use fmn")

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return within(self.shortest(model, x, y, threat), x, threat)

    def shortest(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        self.check(threat)
        delta, best = torch.zeros_like(x), Shortest(x, threat)
        length = x.new_full((len(x),), self.first)
        with borrowed(model):
            for step in range(self.steps + 1):
                _, gradient, wrong, _ = look(model, cross_entropy, x + delta, y, y)
                best.offer(delta, wrong)
                if step == self.steps:
                    break
                alpha = self.alpha * (0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2)
                length = length * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)
                moved = threat.direction(delta + alpha * threat.direction(gradient))
                delta = (x + length.view(-1, 1, 1, 1) * moved).clamp(0, 1) - x
        return best.delta
