"""One training step: the attack and the loss as one module, so that a wrapper sees one forward and one backward."""

from torch import nn

from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.objectives import hard, smooth
from regmix.threats import Threat
from regmix.types import Batch, Losses


class TrainStep(nn.Module):
    """Runs a method on a batch; Fabric wraps this module, never the model, once.

    label_mass is the probability that the labels give to the true class; the rest is spread evenly (1: hard labels).
    """

    def __init__(self, model: nn.Module, method: Method, threat: Threat, classes: int, label_mass: float) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.threat = threat
        self.classes = classes
        self.label_mass = label_mass

    def forward(self, batch: Batch, memory: Memory | None) -> Losses:
        batch = batch._replace(y=smooth(hard(batch.y), self.classes, self.label_mass))
        return self.method.compute(self.model, batch, self.threat, memory)
