"""FGSM-LAW: one step, and outputs and features that may not change faster than the images (a Lipschitz term)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.features import logits_and_features
from regmix.methods.memory import Memory
from regmix.methods.shared import attack_ratio, check_weights
from regmix.objectives import cross_entropy, precise
from regmix.threats import Threat
from regmix.types import Batch, Clock, Logits, Losses, Tag, Target, require


@dataclass(frozen=True)
class FgsmLaw(Method):
    """Cross-entropy after one step from half a corner, and the change of outputs and features per change of x.

    With delta_0 = P[eps / 2 sign(U(-1, 1))], h the features (the input of the last layer of f), p = softmax f and

        delta = P[delta_0 + eps sign(grad CE(p(x + delta_0), y))]
        R     = MSE(p(x + delta), p(x)) + MSE(softmax h(x + delta), softmax h(x))
        loss  = CE(f(x + delta), t) + lam R / (MSE(x + delta, x) + floor)

    where MSE is the mean over every element of the batch. Gradients flow through all outputs. The cross-entropy of the
    attack takes the probabilities as if they were logits; `attack_outputs` chooses.

    Source: the public code of FGSM-LAW (jiaxiaojunQAQ/FGSM-LAW; published label mass 0.7, weight averaging gated at
    0.82 by acc(x + delta) / acc(x), and holes of 4 pixels in the images). Deviations: these are settings of their own
    (`--label-mass`, `--averaging gated_ema`, `--erase cutout`).
    """

    title = "FGSM-LAW"
    reports_ratio = True
    needs_features = True
    name: Tag[Literal["fgsm_law"]] = field(default="fgsm_law", kw_only=True)
    lam: float = 12.0
    """Weight of the changes."""
    floor: float = 0.125
    """What is added to the mean squared perturbation before it divides."""
    attack_outputs: Literal["probabilities", "logits"] = "probabilities"
    """Input of the attack's cross-entropy in place of logits: the probabilities, as in the code, or the logits."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(0 < self.floor < float("inf"), f"method floor is {self.floor}; it must be positive")

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        start = threat.project(threat.corner(x) / 2, x)
        delta = ascend(
            model, x, batch.y, threat, start=start, steps=1, step_size=threat.eps, objective=self._climbed
        ).delta
        clean, clean_features = logits_and_features(model, x)
        logits, features = logits_and_features(model, x + delta)
        change = _distance(logits, clean) + _distance(features, clean_features)
        lipschitz = change / (precise(delta).square().mean() + self.floor)
        terms = {"classify": batch.mean(cross_entropy(logits, batch.target)), "lipschitz": self.lam * lipschitz}
        stats = {"lipschitz": lipschitz.detach(), "ratio": attack_ratio(batch, logits, clean)}
        return Losses(terms, logits, stats)

    def _climbed(self, logits: Logits, target: Target) -> Tensor:
        outputs = precise(logits).softmax(1) if self.attack_outputs == "probabilities" else logits
        return cross_entropy(outputs, target)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.mse_loss(precise(one).softmax(1), precise(other).softmax(1))
