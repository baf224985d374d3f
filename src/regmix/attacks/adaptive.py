"""An attack adapted to RegMix: it climbs RegMix's own objective."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.ascent import ascend
from regmix.draws import PerImage
from regmix.objectives import cross_entropy, kl, log_probabilities
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, PerExample


@dataclass(frozen=True)
class Adaptive:
    """PGD from a random corner of the ball, as in RegMix, on cross-entropy plus RegMix's divergences.

        CE(z, y) + alpha KL(z || z_I) + beta KL(z_I || z) + gamma KL(z_C || z)

    z are the logits at the present iterate, z_I those at the start and z_C the clean ones; z_I and z_C are constants.
    The weights are per example. The attack breaks a model whose robustness is only apparent, because training has
    flattened its own objective around the start.
    """

    steps: int = 50
    step_size: float = 0.25
    """In units of eps."""
    alpha: float = 5.0
    beta: float = 2.0
    gamma: float = 2.0
    seed: int = 0
    """Seed of the random start."""

    @property
    def passes(self) -> int:
        return 3 * self.steps

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        start = threat.project(threat.corner(x, PerImage(x, self.seed)), x)
        with borrowed(model):
            with torch.no_grad():
                initial, clean = log_probabilities(model(x + start)), log_probabilities(model(x))

            def objective(logits: Tensor, target: Tensor) -> PerExample:
                log_p = log_probabilities(logits)
                mutual = self.alpha * kl(log_p, initial) + self.beta * kl(initial, log_p)
                return cross_entropy(logits, target) + mutual + self.gamma * kl(clean, log_p)

            return ascend(
                model, x, y, threat, start=start, steps=self.steps, step_size=self.step_size * threat.eps,
                objective=objective,
            ).delta  # fmt: skip
