"""FGSM-BP: FGSM that starts from the previous batch's perturbation."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import check_weights, proximal_losses
from regmix.methods.storage import PerRow
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class FgsmBp(Method):
    """One step from the last batch's perturbation, row by row; a term keeps the output close to that at the start.

    With delta the last batch's perturbation (a random corner in the first step) and g = grad CE(f(x + delta), y):

        delta' = P[delta + eps sign g]                      the adversarial example, and the next batch's start
        loss   = CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2)          over every logit

    Source: FGSM-PGI, arXiv 2207.08859, section on the prior of the previous batch (published label mass 0.6). The
    attack maximises the cross-entropy of the smoothed label, as in the public code of FGSM-MEP. Rows that the last
    batch did not have start at zero.
    """

    title = "FGSM-BP"
    needs_clock = True
    name: Tag[Literal["fgsm_bp"]] = field(default="fgsm_bp", kw_only=True)
    lam: float = 10.0
    """Weight of the squared distance of logits, averaged over every element."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=PerRow(setup.shape, setup.device))

    def phase(self, clock: Clock) -> bool:
        return clock.epoch == clock.step == 0

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_bp keeps a memory"
        start = threat.corner(batch.x) if self.phase(clock) else memory["delta"].read(batch)
        ascent = ascend(
            model, batch.x, batch.target, threat, start=start, steps=1, step_size=threat.eps, keep_graph=True
        )
        memory["delta"].write(batch, ascent.delta)
        return proximal_losses(model, batch, ascent, self.lam)
