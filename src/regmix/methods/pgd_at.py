"""PGD adversarial training."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.mutual import Mutual
from regmix.methods.shared import attack_ratio, batchnorm_mode, check_attack
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class PgdAt(Method):
    """Cross-entropy at the end of a PGD attack on it: min E max_delta CE(f(x + delta), y) (arXiv 1706.06083).

    10 steps of eps / 4 are PGD-AT as published at 8/255; 2 steps of eps / 2 from zero are PGD-2-AT. The attack
    maximises the cross-entropy of the hard label. A uniform start is clipped to the image's range, as in the public
    code of PGD-AT, of FGSM-RS's paper (arXiv 2001.03994) and of arXiv 2002.11569; a corner is RegMix's, which is not.

    BatchNorm during the attack: these codes leave it in train mode, which is the default here; the FastAT benchmark
    (through torchattacks) attacks in evaluation mode, which is attack_batchnorm="eval".
    """

    title = "PGD-AT"
    reports_ratio = True
    name: Tag[Literal["pgd_at"]] = field(default="pgd_at", kw_only=True)
    steps: int = 10
    """Number of gradient steps of the attack."""
    step_size: float | None = None
    """Length of a step in units of eps; None means 1 / 4 from 4 steps on, and 1 / steps below."""
    start: Literal["zero", "uniform", "corner"] | None = None
    """Where the attack begins; None means uniform from 4 steps on, and zero below."""
    attack_batchnorm: Literal["train", "eval"] = "train"
    """BatchNorm during the attack: batch statistics, updating the running ones, or the running ones. With eval, the
    first output of the mutual terms is computed again in train mode, which costs one more forward pass."""
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def __post_init__(self) -> None:
        check_attack(self.steps, 1.0 if self.step_size is None else self.step_size)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        long = self.steps >= 4
        step_size = self.step_size if self.step_size is not None else (0.25 if long else 1 / self.steps)
        start = self.start if self.start is not None else ("uniform" if long else "zero")
        x = batch.x
        if start == "zero":
            delta = torch.zeros_like(x)
        else:
            delta = threat.project(threat.uniform(x), x) if start == "uniform" else threat.corner(x)
        share = self.mutual.pair and self.attack_batchnorm == "train"
        with batchnorm_mode(model, self.attack_batchnorm):
            ascent = ascend(
                model, x, batch.y, threat,
                start=delta, steps=self.steps, step_size=step_size * threat.eps, keep_graph=share,
            )  # fmt: skip
        initial = model(x + delta) if self.mutual.pair and not share else ascent.first_logits
        losses = self.mutual.losses(model, batch, ascent.delta, initial)
        return losses._replace(stats=losses.stats | {"ratio": attack_ratio(batch, losses.logits, initial)})
