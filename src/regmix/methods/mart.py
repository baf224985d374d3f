"""MART: misclassification-aware adversarial training."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.shared import batchnorm_mode, check_attack, check_weights
from regmix.objectives import cross_entropy, kl, log_probabilities
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class Mart(Method):
    """Boosted cross-entropy on adversarial images, and a divergence that weighs more where the clean image is wrong.

    With p = softmax f(x), p' = softmax f(x + delta) and delta by PGD on cross-entropy from 0.001 N(0, 1):

        loss = CE(f(x + delta), y) - log(1 - max_{k != y} p'_k) + lam KL(p || p') (1 - p_y)

    Means over the examples; gradients flow through every factor. Source: Wang et al., ICLR 2020, and its public code,
    which attacks in evaluation mode. Deviation: the logarithms are exact; the code adds 0.0001 or 1e-12 inside.
    """

    title = "MART"
    hard_labels = True
    name: Tag[Literal["mart"]] = field(default="mart", kw_only=True)
    lam: float = 5.0
    """Weight of the divergence (the code's beta: 5 for ResNet-18, 6 for WideResNet)."""
    steps: int = 10
    """Number of gradient steps of the attack."""
    step_size: float = 0.25
    """Length of a step in units of eps."""
    attack_batchnorm: Literal["train", "eval"] = "eval"
    """BatchNorm during the attack: batch statistics, updating the running ones, or the running ones."""

    def __post_init__(self) -> None:
        check_attack(self.steps, self.step_size)
        check_weights(lam=self.lam)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x, y = batch.x, batch.y
        with batchnorm_mode(model, self.attack_batchnorm):
            delta = ascend(
                model, x, y, threat,
                start=0.001 * torch.randn_like(x), steps=self.steps, step_size=self.step_size * threat.eps,
            ).delta  # fmt: skip
        clean, logits = model(x), model(x + delta)
        log_p, log_q = log_probabilities(clean), log_probabilities(logits)
        rival = log_q.scatter(1, y[:, None], float("-inf")).argmax(1, keepdim=True)
        # log(1 - q_k) as the logarithm of the other probabilities' sum, which does not cancel where q_k is near 1.
        boost = batch.mean(-log_q.scatter(1, rival, float("-inf")).logsumexp(1))
        wrong = -torch.expm1(log_p.gather(1, y[:, None])[:, 0])
        divergence = (kl(log_p, log_q) * wrong).mean()
        terms = {
            "classify": batch.mean(cross_entropy(logits, batch.target)),
            "boost": boost,
            "diverge": self.lam * divergence,
        }
        return Losses(terms, logits, {"diverge": divergence.detach()})
