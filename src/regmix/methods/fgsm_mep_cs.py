"""FGSM-MEP with ConvergeSmooth: the loss on clean images may not jump from epoch to epoch."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.converge import converge_weight, history, is_active
from regmix.methods.memory import Memory, Setup, momenta, perturbations
from regmix.methods.shared import check_weights, keep_next_start, mean_one, remembered_or_corner
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class FgsmMepCs(Method):
    """FGSM-MEP's example, and a term against jumps of the loss on clean images in place of the squared distance.

    With delta and m the sample's memory, g = grad CE(f(x + delta), t), and L_n' the mean of L_n in the epoch before:

        delta' = P[delta + eps sign g],   m <- mu m + g / mean|g|,   delta <- P[delta + eps sign m]
        L_n    = CE(f(x), t)
        k      = sign(L_n - L_n') where |L_n - L_n'| > threshold, else 0
        loss   = CE(f(x + delta'), t) + k L_n

    k is 0 before epoch `begin` and in the last epoch. Source: ConvergeSmooth, arXiv 2308.12857, and the FastAT
    Benchmark's code (arXiv 2604.22853; label mass 0.6 there), whose limits of k, 1 < epoch < 99 of 100 epochs, are read
    as counted from 0. Deviations: those of fgsm_mep.
    """

    title = "FGSM-MEP-CS"
    needs_clock = True
    name: Tag[Literal["fgsm_mep_cs"]] = field(default="fgsm_mep_cs", kw_only=True)
    mu: float = 0.3
    """Decay of the momentum, in [0, 1)."""
    reset: int = 40
    """Epochs after which every sample starts again from a random corner."""
    threshold: float = 0.03
    """Difference of L_n from its mean in the epoch before, from which the term counts."""
    begin: int = 2
    """The first epoch, counted from 0, in which the term counts."""

    def __post_init__(self) -> None:
        check_weights(threshold=self.threshold)
        require(0 <= self.mu < 1, f"method mu is {self.mu}; it must lie in [0, 1)")
        require(self.reset >= 1, f"method reset is {self.reset}; it must be at least 1")
        require(self.begin >= 1, f"method begin is {self.begin}; it must be at least 1, after an epoch to compare with")

    def phase(self, clock: Clock) -> Hashable:
        return clock.epoch % self.reset == 0, clock.step == 0, is_active(clock, self.begin)

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=perturbations(setup), momentum=momenta(setup), history=history(setup))

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_mep_cs keeps a memory"
        delta = remembered_or_corner(batch, threat, memory, clock, self.reset)
        ascent = ascend(model, batch.x, batch.target, threat, start=delta, steps=1, step_size=threat.eps)
        momentum = mean_one(ascent.gradient)
        if clock.epoch % self.reset != 0:
            momentum = self.mu * memory["momentum"].read(batch) + momentum
        keep_next_start(batch, threat, memory, delta, momentum)
        logits = model(batch.x + ascent.delta)
        normal = batch.mean(cross_entropy(model(batch.x), batch.target))
        k = converge_weight(batch, memory, clock, normal, self.threshold, self.begin)
        terms = {"classify": batch.mean(cross_entropy(logits, batch.target)), "converge": k * normal}
        return Losses(terms, logits, {"converge": normal.detach(), "converge_weight": k})
