"""FGSM-PCO: one step from each sample's last perturbation, trained on a mixture that the model's confidence chooses."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup, perturbations
from regmix.methods.shared import check_weights
from regmix.objectives import cross_entropy, precise
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class FgsmPco(Method):
    """Cross-entropy on a mixture of the start of the step and its end, and a term that keeps three outputs together.

    With delta the sample's memory (a random corner in the first epoch), z_0 = f(x + delta), g = grad CE(z_0, t) and

        delta' = P[delta + eps sign g]                                     the sample's next memory
        c      = 1 - softmax(z_0)_y
        x_n    = c (x + delta) + (1 - c) (x + stretch delta')              not clipped to [0, 1]
        loss   = CE(f(x_n), t) + lam |mean (f(x + delta') - z_0)^2 - mean (f(x + delta') - f(x_n))^2|

    with means over every logit. Gradients flow through all three outputs, and through c.

    Source: the public code of FGSM-PCO (HandingWangXDGroup/FGSM-PCO; published label mass 0.6). Deviations: the memory
    moves with the crop and flip of its image, and is kept in int8.
    """

    title = "FGSM-PCO"
    hard_labels = True
    needs_clock = True
    name: Tag[Literal["fgsm_pco"]] = field(default="fgsm_pco", kw_only=True)
    lam: float = 10.0
    """Weight of the term that keeps the outputs together."""
    stretch: float = 1.5
    """Factor of delta' in the mixture (published: 1.5)."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam, stretch=self.stretch)

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=perturbations(setup))

    def phase(self, clock: Clock) -> bool:
        return clock.epoch == 0

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_pco keeps a memory"
        x = batch.x
        start = threat.corner(x) if self.phase(clock) else memory["delta"].read(batch)
        ascent = ascend(model, x, batch.target, threat, start=start, steps=1, step_size=threat.eps, keep_graph=True)
        memory["delta"].write(batch, ascent.delta)
        before = precise(ascent.first_logits)
        doubt = 1 - before.softmax(1).gather(1, batch.y[:, None]).to(x.dtype)[:, :, None, None]
        mixed = model(x + doubt * start + (1 - doubt) * self.stretch * ascent.delta)
        after = model(x + ascent.delta)
        far, near = ((precise(after) - other).square().mean() for other in (before, precise(mixed)))
        together = (far - near).abs()
        terms = {"classify": batch.mean(cross_entropy(mixed, batch.target)), "together": self.lam * together}
        return Losses(terms, mixed, {"together": together.detach()})
