"""Free adversarial training."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.storage import PerRow
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class FreeAt(Method):
    """Every batch is used in `replays` steps; each step updates the weights and the perturbation from the same point.

    With the perturbation delta of the step before, whatever its batch was, clipped to the range of the new images:

        loss  = CE(f(x + delta), y)
        delta <- P[delta + eps sign(grad_delta loss)]

    An epoch has as many steps as with any other method, so that a pass over the images takes `replays` epochs: the
    paper's N / m epochs of m replays. Source: arXiv 1904.12843. Deviation from its code: the input gradient takes a
    separate backward pass. In the FastAT benchmark's code every batch begins at zero.
    """

    title = "Free-AT"
    name: Tag[Literal["free_at"]] = field(default="free_at", kw_only=True)
    replays: int = 8
    """Number of consecutive steps with the same batch."""

    def __post_init__(self) -> None:
        require(self.replays >= 1, f"method replays is {self.replays}; it must be at least 1")

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=PerRow(setup.shape, setup.device))

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "free_at keeps a memory"
        start = threat.project(memory["delta"].read(batch), batch.x)
        ascent = ascend(
            model, batch.x, batch.target, threat, start=start, steps=1, step_size=threat.eps, keep_graph=True
        )
        memory["delta"].write(batch, ascent.delta)
        logits = ascent.first_logits
        return Losses({"classify": batch.mean(cross_entropy(logits, batch.target))}, logits, {})
