"""FGSM-MEP: FGSM that starts where the momentum of each sample's past gradients leads."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup, momenta, perturbations
from regmix.methods.mutual import Mutual
from regmix.methods.shared import check_weights, keep_next_start, mean_one, proximal_losses, remembered_or_corner
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class FgsmMep(Method):
    """One step from each sample's remembered perturbation, and its momentum leads to the next one.

    With delta and m the sample's memory and g = grad CE(f(x + delta), y) on the smoothed labels:

        delta' = P[delta + eps sign g]                                         the adversarial example
        m     <- mu m + g / mean|g|                                            (mean over the batch)
        delta <- P[delta + eps sign m]                                         the next start
        loss   = CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2)          over every logit

    Source: FGSM-PGI, arXiv 2207.08859 (published label mass 0.6), and its public code, which divides by the sum of |g|
    instead of the mean. The paper writes m <- mu m + sign g (momentum="sign"); but with mu below 1/2 such an m has the
    sign of its last summand, so that the momentum is without effect and the method is FGSM-EP. Deviations from the
    code: the memory moves with the crop and flip of its image; under L-inf delta is kept in int8 and m in float8.
    """

    title = "FGSM-MEP"
    needs_clock = True
    name: Tag[Literal["fgsm_mep"]] = field(default="fgsm_mep", kw_only=True)
    lam: float = 10.0
    """Weight of the squared distance of logits, averaged over every element."""
    mu: float = 0.3
    """Decay of the momentum, in [0, 1)."""
    momentum: Literal["gradient", "sign"] = "gradient"
    """What is accumulated: the gradient, as in the public code, or its sign, as the paper writes."""
    reset: int = 40
    """Epochs after which every sample starts again from a random corner (published: CIFAR-10 40, CIFAR-100 10)."""
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(0 <= self.mu < 1, f"method mu is {self.mu}; it must lie in [0, 1)")
        require(self.reset >= 1, f"method reset is {self.reset}; it must be at least 1")

    def phase(self, clock: Clock) -> bool:
        return clock.epoch % self.reset == 0

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=perturbations(setup), momentum=momenta(setup))

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_mep keeps a memory"
        delta = remembered_or_corner(batch, threat, memory, clock, self.reset)
        ascent = ascend(
            model, batch.x, batch.target, threat, start=delta, steps=1, step_size=threat.eps, keep_graph=True
        )
        sign = self.momentum == "sign"
        momentum = threat.direction(ascent.gradient) if sign else mean_one(ascent.gradient)
        if clock.epoch % self.reset != 0:
            momentum = self.mu * memory["momentum"].read(batch) + momentum
        keep_next_start(batch, threat, memory, delta, momentum)
        losses = proximal_losses(model, batch, ascent, self.lam)
        return self.mutual.join(losses, ascent.first_logits, lambda: model(batch.x))
