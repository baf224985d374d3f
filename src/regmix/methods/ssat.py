"""SSAT: FGSM-RS trained on the first point of its step at which the model errs."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.shared import batchnorm_mode, check_attack
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class Ssat(Method):
    """Cross-entropy at the smallest part of FGSM-RS's perturbation that the model misclassifies.

    With eta ~ U(-eps, eps), g = grad CE(f(x + eta), y) and delta = P[eta + step_size eps sign g], every example is
    trained at

        x                    where f(x + eta) is wrong already,
        x + (k / c) delta    with the smallest k = 1 .. c - 1 at which f is wrong,
        x + delta            else.

    The c - 1 tests use BatchNorm's running statistics; whether f(x + eta) is wrong is read from the attack's own pass,
    on the batch's statistics. Source: "Understanding Catastrophic Overfitting in Single-step Adversarial Training",
    arXiv 2010.01799, and its public code; the FastAT Benchmark (arXiv 2604.22853) has the same, with a step of 10/255
    and c = 3.
    """

    title = "SSAT"
    hard_labels = True
    name: Tag[Literal["ssat"]] = field(default="ssat", kw_only=True)
    step_size: float = 1.25
    """Length of the step in units of eps."""
    checkpoints: int = 3
    """The number c of points of the step: c - 1 tests, and its end."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        require(self.checkpoints >= 1, f"method checkpoints is {self.checkpoints}; it must be at least 1")

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x, y = batch.x, batch.y
        start = threat.project(threat.uniform(x), x)
        ascent = ascend(model, x, y, threat, start=start, steps=1, step_size=self.step_size * threat.eps)
        part = torch.ones_like(y, dtype=x.dtype)
        with torch.no_grad(), batchnorm_mode(model, "eval"):
            for k in range(self.checkpoints - 1, 0, -1):  # the smallest part that is wrong is written last
                share = k / self.checkpoints
                wrong = model(x + share * ascent.delta).argmax(1) != y
                part = torch.where(wrong, share, part)
        part = torch.where(ascent.first_logits.argmax(1) != y, 0.0, part)
        logits = model(x + part[:, None, None, None] * ascent.delta)
        loss = batch.mean(cross_entropy(logits, batch.target))
        return Losses({"classify": loss}, logits, {"part": part.mean()})
