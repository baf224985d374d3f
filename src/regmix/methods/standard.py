"""Standard training."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class Standard(Method):
    """Cross-entropy on the clean images: no robustness, the baseline for clean accuracy."""

    title = "standard training"
    adversarial = False
    name: Tag[Literal["standard"]] = field(default="standard", kw_only=True)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        logits = model(batch.x)
        return Losses({"classify": batch.mean(cross_entropy(logits, batch.target))}, logits, {})
