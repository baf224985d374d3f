"""FGSM adversarial training."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.mutual import Mutual
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class FgsmAt(Method):
    """Cross-entropy after one step of eps from the clean image: delta = P[eps sign(grad CE(f(x), y))].

    Source: arXiv 1412.6572. It collapses (catastrophic overfitting) at the usual eps.
    """

    title = "FGSM-AT"
    name: Tag[Literal["fgsm_at"]] = field(default="fgsm_at", kw_only=True)
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        ascent = ascend(
            model, x, batch.y, threat,
            start=torch.zeros_like(x), steps=1, step_size=threat.eps, keep_graph=self.mutual.pair,
        )  # fmt: skip
        return self.mutual.losses(model, batch, ascent.delta, ascent.first_logits)
