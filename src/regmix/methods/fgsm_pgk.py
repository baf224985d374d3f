"""FGSM-PGK: FGSM with prior-guided knowledge."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup, momenta, perturbations
from regmix.methods.mutual import Mutual
from regmix.methods.shared import (
    attack_ratio,
    check_weights,
    keep_next_start,
    mean_one,
    proximal_losses,
    remembered_or_corner,
)
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class FgsmPgk(Method):
    """One step from each sample's remembered perturbation, whose momentum leads to the next one.

    With g = grad CE(f(x + delta), y) on the smoothed labels, delta and m the sample's memory:

        delta' = P[delta + eps sign g]                                         the adversarial example
        r      = acc(x + delta') / acc(x + delta)                              over the batch
        m     <- mu m + (2 - r) g / mean|g|                                    (mean over the batch)
        delta <- P[delta + eps sign m]                                         the next start
        loss   = CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2)      over every logit

    Both outputs in the second term carry gradients. Weight averaging gated by r is `--averaging gated_ema`.

    Source: FGSM-PGK (the baseline that arXiv 2510.05317 builds on) and its public code. Deviations from that code:
    the memory moves with the crop and flip of its image; r divides by at least one correct example; g is divided by
    the mean of |g| instead of the sum; under L-inf delta is kept in int8 and m in float8.
    """

    title = "FGSM-PGK"
    reports_ratio = True
    needs_clock = True
    name: Tag[Literal["fgsm_pgk"]] = field(default="fgsm_pgk", kw_only=True)
    lam: float = 5.6
    """Weight of the squared distance of logits, averaged over every element (published: CIFAR-10 5.6; CIFAR-100 and
    Tiny ImageNet 1)."""
    mu: float = 0.3
    """Decay of the momentum (published: CIFAR-10 0.3; CIFAR-100 and Tiny ImageNet 0.1)."""
    reset: int = 10
    """Epochs after which every sample starts again from a random corner without momentum (CIFAR-10 10; others 40)."""
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default. With lam 0 and alpha
    and beta they replace the squared distance, which is the paper's step from FGSM-PGK to its mutual regularisation."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(0 <= self.mu < 1, f"method mu is {self.mu}; it must lie in [0, 1)")
        require(self.reset >= 1, f"method reset is {self.reset}; it must be at least 1")

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=perturbations(setup), momentum=momenta(setup))

    def phase(self, clock: Clock) -> bool:
        return clock.epoch % self.reset == 0

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_pgk keeps a memory"
        x = batch.x
        delta = remembered_or_corner(batch, threat, memory, clock, self.reset)
        fresh = clock.epoch % self.reset == 0
        momentum = torch.zeros_like(x) if fresh else memory["momentum"].read(batch)
        ascent = ascend(model, x, batch.target, threat, start=delta, steps=1, step_size=threat.eps, keep_graph=True)
        losses = proximal_losses(model, batch, ascent, self.lam)
        ratio = attack_ratio(batch, losses.logits, ascent.first_logits)
        momentum = self.mu * momentum + (2 - ratio) * mean_one(ascent.gradient)
        keep_next_start(batch, threat, memory, delta, momentum)
        losses = self.mutual.join(losses, ascent.first_logits, lambda: model(x))
        return losses._replace(stats=losses.stats | {"ratio": ratio})
