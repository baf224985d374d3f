"""TRADES."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.mutual import Mutual
from regmix.methods.shared import batchnorm_mode, check_attack, check_weights
from regmix.objectives import cross_entropy, kl, log_probabilities
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class Trades(Method):
    """Cross-entropy on the clean images and the divergence of the adversarial output from the clean one.

        loss = CE(f(x), y) + lam KL(f(x) || f(x + delta)),   delta = argmax KL(f(x) || f(x + delta)) by PGD from
                                                             0.001 N(0, 1)

    Means over the examples; gradients flow through both outputs. Source: arXiv 1901.08573 and its public code, which
    attacks in evaluation mode. Deviations: both sides of KL are log-probabilities, because the code's form has given
    NaN gradients since torch 1.13; the clean output is computed once; under L2 the attack is PGD as well.
    """

    title = "TRADES"
    name: Tag[Literal["trades"]] = field(default="trades", kw_only=True)
    lam: float = 6.0
    """Weight of the divergence per example (the code's beta)."""
    steps: int = 10
    """Number of gradient steps of the attack."""
    step_size: float = 0.25
    """Length of a step in units of eps."""
    attack_batchnorm: Literal["train", "eval"] = "eval"
    """BatchNorm during the attack: batch statistics, updating the running ones, or the running ones."""
    mutual: Mutual = Mutual()
    """RegMix's terms between the attack's first, its last and the clean output; none by default."""

    def __post_init__(self) -> None:
        check_attack(self.steps, self.step_size)
        check_weights(lam=self.lam)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        start = 0.001 * torch.randn_like(x)
        share = self.mutual.pair and self.attack_batchnorm == "train"
        with batchnorm_mode(model, self.attack_batchnorm):
            # Not under no_grad, where autocast keeps weights without gradients for the passes that follow (torch 2.6).
            target = log_probabilities(model(x)).detach()
            ascent = ascend(
                model, x, target, threat, start=start, steps=self.steps, step_size=self.step_size * threat.eps,
                objective=lambda logits, target: kl(target, log_probabilities(logits)), keep_graph=share,
            )  # fmt: skip
        initial = model(x + start) if self.mutual.pair and not share else ascent.first_logits
        clean, logits = model(x), model(x + ascent.delta)
        divergence = kl(log_probabilities(clean), log_probabilities(logits)).mean()
        terms = {"classify": batch.mean(cross_entropy(clean, batch.target)), "diverge": self.lam * divergence}
        return self.mutual.join(Losses(terms, logits, {"diverge": divergence.detach()}), initial, lambda: clean)
