"""N-FGSM: noise, then FGSM, without clipping to the ball."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.mutual import Mutual
from regmix.methods.shared import attack_ratio, check_attack, check_weights
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class NFgsm(Method):
    """Cross-entropy after a step from strong noise, which is not brought back into the ball.

    With eta ~ noise * U(-eps, eps), clipped so that x + eta lies in [0, 1], and g = grad CE(f(x + eta), y):

        delta = eta + step_size eps sign(g), clipped so that x + delta lies in [0, 1]

    Source: arXiv 2202.01181 and its public code. It resists catastrophic overfitting at the cost of FGSM-RS.
    """

    title = "N-FGSM"
    reports_ratio = True
    name: Tag[Literal["n_fgsm"]] = field(default="n_fgsm", kw_only=True)
    noise: float = 2.0
    """Size of the noise in units of eps (published: 2 at 8/255, up to 3 at larger eps; 0 is FGSM)."""
    step_size: float = 1.0
    """Length of the step in units of eps."""
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        check_weights(noise=self.noise)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        noise = (x + self.noise * threat.uniform(x)).clamp(0, 1) - x
        ascent = ascend(model, x, batch.y, threat, start=noise, steps=1, step_size=0.0, keep_graph=self.mutual.pair)
        step = self.step_size * threat.eps * threat.direction(ascent.gradient)
        delta = (x + noise + step).clamp(0, 1) - x
        losses = self.mutual.losses(model, batch, delta, ascent.first_logits)
        return losses._replace(stats=losses.stats | {"ratio": attack_ratio(batch, losses.logits, ascent.first_logits)})
