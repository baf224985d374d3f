"""One training step: attack and loss as one module, so that a wrapper such as DDP sees one forward and one backward."""

from dataclasses import replace

from torch import nn

from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.objectives import smooth
from regmix.threats import ThreatConfig
from regmix.types import Batch, Clock, Losses


class TrainStep(nn.Module):
    """Runs a method on a batch. Fabric wraps this module once, and never the model.

    Args:
        label_mass: the probability of the true class in the labels; the rest is spread evenly (1: class indices).
        ramp: the share of the training in which eps and every term but `classify` rise linearly to their full size: in
            the t-th of T steps, counted from 0, both are multiplied by min(1, (t + 1) / (ramp T)).
    """

    def __init__(
        self, model: nn.Module, method: Method, threat: ThreatConfig, classes: int, label_mass: float, ramp: float = 0.0
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.threat = threat
        self.classes = classes
        self.label_mass = label_mass
        self.ramp = ramp

    def forward(self, batch: Batch, memory: Memory | None, clock: Clock) -> Losses:
        if self.label_mass != 1:
            batch = batch._replace(soft=smooth(batch.target, self.classes, self.label_mass))
        share = self.share(clock)
        if share == 1:
            return self.method.compute(self.model, batch, self.threat, memory, clock)
        threat = replace(self.threat, eps=share * self.threat.eps)
        return _scaled(self.method.compute(self.model, batch, threat, memory, clock), share)

    def share(self, clock: Clock) -> float:
        """The factor of eps and of the regularisation terms in this step, in (0, 1]."""
        reached = (clock.done + 1) / (clock.epochs * clock.steps)
        return 1.0 if reached >= self.ramp else reached / self.ramp


def _scaled(losses: Losses, share: float) -> Losses:
    """The losses with a share of every regularisation term, and of its weight where it is reported."""
    terms = {name: value if name == "classify" else share * value for name, value in losses.terms.items()}
    stats = {name: share * value if name.endswith("_weight") else value for name, value in losses.stats.items()}
    return losses._replace(terms=terms, stats=stats)
