"""One training step: attack and loss as one module, so that a wrapper such as DDP sees one forward and one backward."""

from torch import nn

from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.objectives import smooth
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses


class TrainStep(nn.Module):
    """Runs a method on a batch. Fabric wraps this module once, and never the model.

    label_mass is the probability of the true class in the labels; the rest is spread evenly (1: class indices).
    """

    def __init__(self, model: nn.Module, method: Method, threat: Threat, classes: int, label_mass: float) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.threat = threat
        self.classes = classes
        self.label_mass = label_mass

    def forward(self, batch: Batch, memory: Memory | None, clock: Clock) -> Losses:
        if self.label_mass != 1:
            batch = batch._replace(soft=smooth(batch.y, self.classes, self.label_mass))
        return self.method.compute(self.model, batch, self.threat, memory, clock)
