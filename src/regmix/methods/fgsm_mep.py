"""FGSM-MEP: FGSM that starts where the momentum of each sample's past gradients leads."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method, check_weights, proximal_losses, remembered_or_corner
from regmix.methods.mutual import Mutual
from regmix.priors import Memory, Prior, perturbations
from regmix.threats import Linf, Threat
from regmix.types import Batch, Losses, Tag, require


@dataclass(frozen=True)
class FgsmMep(Method):
    """One step from each sample's remembered perturbation, whose momentum of signs leads to the next one.

    With delta and m the sample's memory and g = grad CE(f(x + delta), y):

        delta' = P[delta + eps sign g]                                         the adversarial example
        m     <- mu m + sign g
        delta <- P[delta + eps sign m]                                         the next start
        loss   = CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2)          over every logit

    Source: FGSM-PGI, arXiv 2207.08859 (published label mass 0.6), whose public code accumulates g / ||g||_1 instead of
    sign g; FGSM-PGK, its successor, does so too. The attack climbs the cross-entropy of the smoothed label, as in that
    code. Deviations: the memory moves with the crop and flip of its image; under L-inf both of its parts are kept in
    int8, m in steps of 1 / (127 (1 - mu)).
    """

    name: Tag[Literal["fgsm_mep"]] = field(default="fgsm_mep", kw_only=True)
    lam: float = 10.0
    """Weight of the squared distance of logits, averaged over every element."""
    mu: float = 0.3
    """Decay of the momentum, in [0, 1)."""
    reset: int = 40
    """Epochs after which every sample starts again from a random corner (published: CIFAR-10 40, CIFAR-100 10)."""
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(0 <= self.mu < 1, f"method mu is {self.mu}; it must lie in [0, 1)")
        require(self.reset >= 1, f"method reset is {self.reset}; it must be at least 1")

    def memory(self, count: int, shape: tuple[int, int, int], pad: int, threat: Threat, device: torch.device) -> Memory:
        dtype = torch.int8 if isinstance(threat, Linf) else torch.bfloat16
        return Memory(
            delta=perturbations(count, shape, pad, threat, device),
            momentum=Prior(count, shape, pad, device, dtype=dtype, limit=1 / (1 - self.mu)),
        )

    def __call__(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None = None) -> Losses:
        assert memory is not None, "fgsm_mep keeps a memory"
        delta = remembered_or_corner(batch, threat, memory, self.reset)
        ascent = ascend(model, batch.x, batch.y, threat, start=delta, steps=1, step_size=threat.eps, keep_graph=True)
        momentum = threat.direction(ascent.gradient)
        if memory.epoch % self.reset != 0:
            momentum = self.mu * memory.priors["momentum"].read(batch) + momentum
        memory.priors["delta"].write(batch, threat.project(delta + threat.eps * threat.direction(momentum), batch.x))
        memory.priors["momentum"].write(batch, momentum)
        losses = proximal_losses(model, batch, ascent, self.lam)
        return self.mutual.join(losses, ascent.first_logits, lambda: model(batch.x))
