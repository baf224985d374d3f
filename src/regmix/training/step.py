"""One training step: attack and loss as one module, so that a wrapper such as DDP sees one forward and one backward."""

from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.objectives import smooth, smooth_by
from regmix.threats import ThreatConfig
from regmix.types import Batch, Clock, Logits, Losses


class TrainStep(nn.Module):
    """Runs a method on a batch. Fabric wraps this module once, and never the model.

    Args:
        label_mass: the probability of the true class in the labels (1: class indices).
        ramp: the share of the training in which eps and every term but `classify` rise linearly to their full size: in
            the t-th of T steps, counted from 0, both are multiplied by min(1, (t + 1) / (ramp T)).
        label_rest: how the other classes share the rest: evenly, or by random numbers, drawn anew for every label.
        ramp_of: what rises: all, or the terms alone.
    """

    def __init__(
        self, model: nn.Module, method: Method, threat: ThreatConfig, classes: int, label_mass: float,
        ramp: float = 0.0, *, label_rest: Literal["even", "random"] = "even", ramp_of: Literal["all", "terms"] = "all",
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self.method = method
        self.threat = threat
        self.classes = classes
        self.label_mass = label_mass
        self.ramp = ramp
        self.label_rest = label_rest
        self.ramp_of = ramp_of

    def forward(self, batch: Batch, memory: Memory | None, clock: Clock) -> Losses:
        if self.label_mass != 1:
            batch = batch._replace(soft=self._smoothed(batch))
        share = self.share(clock)
        if share == 1:
            return self.method.compute(self.model, batch, self.threat, memory, clock)
        threat = self.threat if self.ramp_of == "terms" else replace(self.threat, eps=share * self.threat.eps)
        return _scaled(self.method.compute(self.model, batch, threat, memory, clock), share)

    def _smoothed(self, batch: Batch) -> Logits:
        if self.label_rest == "even":
            return smooth(batch.target, self.classes, self.label_mass)
        shares = torch.rand(len(batch.y), self.classes, dtype=batch.x.dtype, device=batch.x.device)
        return smooth_by(batch.target, shares, self.label_mass)

    def share(self, clock: Clock) -> float:
        """The factor of what rises in this step, in (0, 1]."""
        reached = (clock.done + 1) / (clock.epochs * clock.steps)
        return 1.0 if reached >= self.ramp else reached / self.ramp


def _scaled(losses: Losses, share: float) -> Losses:
    """The losses with a share of every regularisation term, and of its weight where it is reported."""
    terms = {name: value if name == "classify" else share * value for name, value in losses.terms.items()}
    stats = {name: share * value if name.endswith("_weight") else value for name, value in losses.stats.items()}
    return losses._replace(terms=terms, stats=stats)
