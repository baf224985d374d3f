"""FGSM."""

from dataclasses import dataclass

import torch

from regmix.attacks.ascent import ascend
from regmix.objectives import cross_entropy
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Fgsm:
    """One gradient step of length eps from the clean image: delta = P[eps * direction(grad CE)] (arXiv 1412.6572)."""

    climbs = staticmethod(cross_entropy)

    @property
    def passes(self) -> int:
        return 3

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        with borrowed(model):
            return ascend(model, x, y, threat, start=torch.zeros_like(x), steps=1, step_size=threat.eps).delta
