"""FGSM-EP: FGSM that starts from each sample's perturbation of the epoch before."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup, perturbations
from regmix.methods.shared import check_weights, proximal_losses, remembered_or_corner
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class FgsmEp(Method):
    """One step from each sample's last perturbation; a term keeps the output close to that at the start.

    With delta the sample's memory and g = grad CE(f(x + delta), y):

        delta' = P[delta + eps sign g]                      the adversarial example, and the next epoch's start
        loss   = CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2)          over every logit

    Source: FGSM-PGI, arXiv 2207.08859, section on the prior of the previous epoch (published label mass 0.6). The
    attack maximises the cross-entropy of the smoothed label, as in the public code of FGSM-MEP. Deviations: the memory
    moves with the crop and flip of its image, and is kept in int8.
    """

    title = "FGSM-EP"
    needs_clock = True
    name: Tag[Literal["fgsm_ep"]] = field(default="fgsm_ep", kw_only=True)
    lam: float = 10.0
    """Weight of the squared distance of logits, averaged over every element."""
    reset: int = 40
    """Epochs after which every sample starts again from a random corner (CIFAR-10 40, CIFAR-100 10)."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(self.reset >= 1, f"method reset is {self.reset}; it must be at least 1")

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=perturbations(setup))

    def phase(self, clock: Clock) -> bool:
        return clock.epoch % self.reset == 0

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_ep keeps a memory"
        start = remembered_or_corner(batch, threat, memory, clock, self.reset)
        ascent = ascend(
            model, batch.x, batch.target, threat, start=start, steps=1, step_size=threat.eps, keep_graph=True
        )
        memory["delta"].write(batch, ascent.delta)
        return proximal_losses(model, batch, ascent, self.lam)
