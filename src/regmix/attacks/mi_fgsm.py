"""MI-FGSM."""

from dataclasses import dataclass

import torch

from regmix.objectives import cross_entropy
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class MiFgsm:
    """Iterated FGSM with momentum, from the clean image; its examples transfer well to other models.

        m     <- decay m + g / ||g||_1
        delta <- P[delta + eps / steps direction(m)]

    g is the input gradient of the cross-entropy. Source: arXiv 1710.06081.
    """

    steps: int = 10
    decay: float = 1.0
    """Factor of the old momentum in every step."""

    climbs = staticmethod(cross_entropy)

    @property
    def passes(self) -> int:
        return 3 * self.steps

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        delta, momentum = torch.zeros_like(x), torch.zeros_like(x)
        with borrowed(model):
            for _ in range(self.steps):
                delta.requires_grad_()
                with torch.enable_grad():
                    value = cross_entropy(model(x + delta), y).sum()
                (gradient,) = torch.autograd.grad(value, delta)
                length = gradient.flatten(1).abs().sum(1).clamp_min(1e-30).view(-1, 1, 1, 1)
                momentum = self.decay * momentum + gradient / length
                delta = threat.project(delta.detach() + threat.eps / self.steps * threat.direction(momentum), x)
        return delta
