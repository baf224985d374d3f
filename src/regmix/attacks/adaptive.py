"""An attack on what RegMix trains."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.attacks.ascent import ascend
from regmix.objectives import cross_entropy, kl, log_probabilities
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, PerExample


@dataclass(frozen=True)
class Adaptive:
    """PGD from a random corner, as RegMix begins, on cross-entropy together with RegMix's divergences.

        CE(z, y) + alpha KL(z || z_I) + beta KL(z_I || z) + gamma KL(z_C || z)

    z_I are the logits at the start and z_C the clean ones, both held fixed; weights per example. A model that only
    looks robust because training flattened the way from the start (its own objective) would fall to it.
    """

    steps: int = 50
    step_size: float = 0.25
    """In units of eps."""
    alpha: float = 5.0
    beta: float = 2.0
    gamma: float = 2.0
    seed: int = 0
    """Seeds the start."""

    @property
    def passes(self) -> int:
        return 3 * self.steps

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        generator = torch.Generator(x.device).manual_seed(self.seed)
        start = threat.project(threat.corner(x, generator), x)
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
