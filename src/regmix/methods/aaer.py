"""AAER: a penalty on examples whose loss falls when they are attacked. N-AAER adds it to N-FGSM, RS-AAER to FGSM-RS."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.shared import check_attack, check_weights
from regmix.objectives import cross_entropy, precise
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class NAaer(Method):
    """Cross-entropy after one step from noise, and a penalty on the abnormal examples, whose loss the step has lowered.

    With eta ~ noise * U(-eps, eps), clipped so that x + eta lies in [0, 1], g = grad CE(f(x + eta), y), and

        delta = eta + step_size eps sign(g), clipped so that x + delta lies in [0, 1] (with `project` in the ball, too)
        A     = {i : CE(f(x_i + eta_i), y_i) > CE(f(x_i + delta_i), y_i)},   N = the other examples of the batch
        V_S   = mean over S of ||f(x + delta) - sg f(x + eta)||^2
        loss  = CE(f(x + delta), t) + (|A| / B) (drop_weight mean over A of (CE(f(x + eta), y) - CE(f(x + delta), y))
                                                 + variation_weight max(V_A - sg V_N, 0))

    where sg stops the gradient; the penalty is 0 if A or N is empty. y are class indices also where labels are soft.

    Source: NeurIPS 2023 (Abnormal Adversarial Examples Regularization) and its public code, tmllab/2023_NeurIPS_AAER.
    Deviations: each of several processes finds A and the means in its share of the batch. In the code no gradient flows
    through the drop, so that drop_weight changes nothing; `drop_gradient` chooses.
    """

    title = "N-AAER"
    name: Tag[Literal["n_aaer"]] = field(default="n_aaer", kw_only=True)
    noise: float = 2.0
    """Size of the noise in units of eps."""
    step_size: float = 1.0
    """Length of the step in units of eps."""
    project: bool = False
    """Bring delta back into the ball of eps."""
    drop_weight: float = 1.5
    """Weight of the mean drop of the loss (published at 8/255: 1.5, RS-AAER 2.5; 8.5 and 7 at 16/255)."""
    variation_weight: float = 0.15
    """Weight of the variation of the logits (published at 8/255: 0.15, RS-AAER 1.5; 1.5 and 3.25 at 16/255)."""
    drop_gradient: Literal["both", "none"] = "both"
    """Gradient of the drop. both: through both losses, as in the formula. none: as in the code."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        check_weights(noise=self.noise, drop_weight=self.drop_weight, variation_weight=self.variation_weight)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x, y = batch.x, batch.y
        eta = (x + self.noise * threat.uniform(x)).clamp(0, 1) - x
        flows = self.drop_gradient == "both" and self.drop_weight > 0
        ascent = ascend(model, x, y, threat, start=eta, steps=1, step_size=0.0, keep_graph=flows)
        moved = eta + self.step_size * threat.eps * threat.direction(ascent.gradient)
        delta = threat.project(moved, x) if self.project else (x + moved).clamp(0, 1) - x
        logits = model(x + delta)
        fall = cross_entropy(ascent.first_logits, y) - cross_entropy(logits, y)
        abnormal = fall.detach() > 0
        count, others = abnormal.sum(), (~abnormal).sum()
        changes = (precise(logits) - precise(ascent.first_logits).detach()).square().sum(1)
        drop = torch.where(abnormal, fall if flows else fall.detach(), 0).sum() / count.clamp_min(1)
        variation = torch.where(abnormal, changes, 0).sum() / count.clamp_min(1)
        usual = torch.where(abnormal, 0, changes.detach()).sum() / others.clamp_min(1)
        share = count.to(fall.dtype) / len(x)
        penalty = self.drop_weight * drop + self.variation_weight * (variation - usual).clamp_min(0)
        terms = {
            "classify": batch.mean(cross_entropy(logits, batch.target)),
            "abnormal": torch.where(others > 0, share * penalty, 0),
        }
        return Losses(terms, logits, {"abnormal_share": share})


@dataclass(frozen=True)
class RsAaer(NAaer):
    """NAaer's loss from noise in the ball and a step of 1.25 eps that is brought back into it, as FGSM-RS.

    Source, formula and deviations: see NAaer.
    """

    title = "RS-AAER"
    name: Tag[Literal["rs_aaer"]] = field(default="rs_aaer", kw_only=True)  # type: ignore[assignment]
    noise: float = 1.0
    """Size of the noise in units of eps."""
    step_size: float = 1.25
    """Length of the step in units of eps."""
    project: bool = True
    """Bring delta back into the ball of eps."""
    drop_weight: float = 2.5
    """Weight of the mean drop of the loss (published at 8/255: 2.5; 7 at 16/255)."""
    variation_weight: float = 1.5
    """Weight of the variation of the logits (published at 8/255: 1.5; 3.25 at 16/255)."""
