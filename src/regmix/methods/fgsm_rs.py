"""FGSM adversarial training with a random start."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.mutual import Mutual
from regmix.methods.shared import check_attack
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class FgsmRs(Method):
    """Cross-entropy after one step from a uniform start: delta = P[U(-eps, eps) + 1.25 eps sign(g)].

    Source: arXiv 2001.03994. It collapses (catastrophic overfitting) at larger eps or in longer training.
    """

    title = "FGSM-RS"
    name: Tag[Literal["fgsm_rs"]] = field(default="fgsm_rs", kw_only=True)
    step_size: float = 1.25
    """Length of the step in units of eps."""

    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        start = threat.project(threat.uniform(x), x)
        ascent = ascend(
            model, x, batch.y, threat,
            start=start, steps=1, step_size=self.step_size * threat.eps, keep_graph=self.mutual.pair,
        )  # fmt: skip
        return self.mutual.losses(model, batch, ascent.delta, ascent.first_logits)
