"""FGSM-RS with ConvergeSmooth: the loss on noisy images may not jump from epoch to epoch."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.converge import converge_weight, history, is_active
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import check_attack, check_weights
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class FgsmRsCs(Method):
    """Cross-entropy after one step from noise, and a term against jumps of the loss on the noisy images.

    With x~ = clip(x + U(-eps, eps)) to [0, 1], g = grad CE(f(x~), y), and L_n' the mean of L_n in the epoch before:

        x'   = clip(x~ + step_size eps sign g)     to [0, 1]; up to 2 eps from x
        L_n  = CE(f(x~), t)
        k    = sign(L_n - L_n') where |L_n - L_n'| > threshold, else 0
        loss = CE(f(x'), t) + k L_n

    k is 0 before epoch `begin` and in the last epoch. The noisy images take a separate forward pass for L_n. Source:
    ConvergeSmooth, arXiv 2308.12857, as the FastAT Benchmark's code has it (arXiv 2604.22853; label mass 0.6 there).
    Its limits, 1 < epoch < 99 of 100 epochs, are read as counted from 0. Deviation: the attack takes class indices.
    """

    title = "FGSM-RS-CS"
    needs_clock = True
    name: Tag[Literal["fgsm_rs_cs"]] = field(default="fgsm_rs_cs", kw_only=True)
    step_size: float = 1.0
    """Length of the step in units of eps."""
    threshold: float = 0.03
    """Difference of L_n from its mean in the epoch before, from which the term counts."""
    begin: int = 2
    """The first epoch, counted from 0, in which the term counts."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        check_weights(threshold=self.threshold)
        require(self.begin >= 1, f"method begin is {self.begin}; it must be at least 1, after an epoch to compare with")

    def phase(self, clock: Clock) -> Hashable:
        return clock.step == 0, is_active(clock, self.begin)

    def memory(self, setup: Setup) -> Memory:
        return Memory(history=history(setup))

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_rs_cs keeps a memory"
        start = threat.project(threat.uniform(batch.x), batch.x)
        ascent = ascend(model, batch.x, batch.y, threat, start=start, steps=1, step_size=0.0)
        moved = start + self.step_size * threat.eps * threat.direction(ascent.gradient)
        logits = model((batch.x + moved).clamp(0, 1))
        normal = batch.mean(cross_entropy(model(batch.x + start), batch.target))
        k = converge_weight(batch, memory, clock, normal, self.threshold, self.begin)
        terms = {"classify": batch.mean(cross_entropy(logits, batch.target)), "converge": k * normal}
        return Losses(terms, logits, {"converge": normal.detach(), "converge_weight": k})
