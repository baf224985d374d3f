"""ATAS: fast adversarial training with an adaptive step size."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup, perturbations
from regmix.methods.per_image import NumberPerImage
from regmix.methods.shared import batchnorm_mode, check_weights
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class Atas(Method):
    """One step from each sample's remembered perturbation, shorter for samples whose gradients are large.

    With delta the sample's memory, g = grad of the batch's mean CE(f(x + delta), y), and v its second memory:

        v     <- beta v + (1 - beta) ||g||_2^2
        step   = eps * clip(2 / (1 + sqrt(v) / c), shortest, longest)        (eps in the first `warm_up` epochs)
        delta <- P[delta + step sign g]                                      the adversarial example
        loss   = CE(f(x + delta), y)

    As in the public code, g is of the mean over the batch, so that c belongs to a batch size, and the attack runs
    BatchNorm on its running statistics. Source: arXiv 2206.02417 and its public code, whose constants for 8/255 are
    given here in units of eps. Deviation: the memory is kept in int8.
    """

    title = "ATAS"
    needs_clock = True
    name: Tag[Literal["atas"]] = field(default="atas", kw_only=True)
    c: float = 0.01
    """Gradient norm at which the step is halved (published for batches of 128)."""
    beta: float = 0.5
    """Decay of the squared gradient norm, in [0, 1)."""
    shortest: float = 0.5
    """Shortest step in units of eps (published: 4/255 at 8/255)."""
    longest: float = 1.75
    """Longest step in units of eps (published: 14/255 at 8/255)."""
    warm_up: int = 5
    """Epochs with a step of eps, in which v stays 0."""
    reset: int = 10
    """Epochs after which every sample starts again from uniform noise."""

    def __post_init__(self) -> None:
        require(0 < self.c < float("inf"), f"method c is {self.c}; it must be positive")
        require(0 <= self.beta < 1, f"method beta is {self.beta}; it must lie in [0, 1)")
        check_weights(shortest=self.shortest, longest=self.longest)
        require(self.shortest <= self.longest, f"method shortest is {self.shortest}, above longest, {self.longest}")
        require(self.reset >= 1, f"method reset is {self.reset}; it must be at least 1")

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=perturbations(setup), v=NumberPerImage(setup.images, setup.device))

    def phase(self, clock: Clock) -> tuple[bool, bool]:
        """Whether every sample starts again, and whether the step is eps."""
        # The published code counts epochs from 1 and does not start again in the last one.
        again = (clock.epoch + 1) % self.reset == 0 and clock.epoch + 1 != clock.epochs
        return clock.epoch == 0 or again, clock.epoch < self.warm_up

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "atas keeps a memory"
        x, y = batch.x, batch.y
        fresh, whole_step = self.phase(clock)
        start = threat.project(threat.uniform(x) if fresh else memory["delta"].read(batch), x)
        with batchnorm_mode(model, "eval"):
            gradient = ascend(model, x, y, threat, start=start, steps=1, step_size=0.0).gradient
        if whole_step:
            step = torch.ones_like(x[:, :1, :1, :1])
        else:
            square = (gradient / len(x)).flatten(1).square().sum(1)
            v = self.beta * memory["v"].read(batch) + (1 - self.beta) * square
            memory["v"].write(batch, v)
            step = (2 / (1 + v.sqrt() / self.c)).clamp(self.shortest, self.longest).view(-1, 1, 1, 1)
        delta = threat.project(start + threat.eps * step * threat.direction(gradient), x)
        memory["delta"].write(batch, delta)
        logits = model(x + delta)
        stats = {"step_size": step.mean()}
        return Losses({"classify": batch.mean(cross_entropy(logits, batch.target))}, logits, stats)
