"""ELLE: one step, with a penalty on how far the loss is from linear between random points of the ball."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import check_attack, check_weights
from regmix.methods.storage import OneForAll
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class Elle(Method):
    """Cross-entropy after one step, and the squared error of linear interpolation of the loss in the ball.

    With eta ~ noise * U(-eps, eps), u, v ~ U(-eps, eps), a ~ U(0, 1) per example and g = grad CE(f(x + eta), y):

        delta = eta + step_size eps sign(g),   x_a = x + u,   x_b = x + v,   x_c = (1 - a) x_a + a x_b
        E     = mean (CE(f(x_c), y) - (1 - a) CE(f(x_a), y) - a CE(f(x_b), y))^2
        loss  = CE(f(x + delta), t) + lam E

    The three points go through the network as one batch, and so have BatchNorm statistics in common. With `schedule`
    adaptive (ELLE-A) the weight begins at 0; after a step whose E exceeds the mean of all E before it by `sensitivity`
    standard deviations, it is lam, else `decay` times its last value.

    Source: the public code of ELLE, LIONS-EPFL/ELLE (ICLR 2024). Deviations: every point is clipped to [0, 1]; the code
    clips none. Each of several processes has the weight that the examples of rank 0 ask for. The code takes two steps
    of the optimiser per batch, this method one.
    """

    title = "ELLE"
    at_once = 3
    name: Tag[Literal["elle"]] = field(default="elle", kw_only=True)
    lam: float = 1000.0
    """Weight of the error (published for CIFAR-10: 1000 up to 8/255, 5000 up to 20/255, 10000 above; ELLE-A 4000)."""
    noise: float = 0.0
    """Size of the noise where the step begins, in units of eps (published: 0; the FastAT benchmark has 1)."""
    step_size: float = 1.0
    """Length of the step in units of eps (published: 1; the FastAT benchmark has 1.25)."""
    schedule: Literal["constant", "adaptive"] = "constant"
    """Weight over time: always lam, or ELLE-A."""
    decay: float = 0.99
    """ELLE-A: factor of the weight after an ordinary step, in [0, 1]."""
    sensitivity: float = 2.0
    """ELLE-A: standard deviations above the mean from which an error sets the weight to lam again."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        check_weights(lam=self.lam, noise=self.noise, decay=self.decay, sensitivity=self.sensitivity)

    def memory(self, setup: Setup) -> Memory | None:
        if self.schedule == "constant":
            return None
        return Memory(history=OneForAll((4,), setup.device))  # steps, mean of E, sum of squared deviations, weight

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x, y = batch.x, batch.y
        start = (x + self.noise * threat.uniform(x)).clamp(0, 1) - x if self.noise else torch.zeros_like(x)
        ascent = ascend(model, x, y, threat, start=start, steps=1, step_size=0.0)
        moved = start + self.step_size * threat.eps * threat.direction(ascent.gradient)
        logits = model((x + moved).clamp(0, 1))
        one, other = ((x + threat.uniform(x)).clamp(0, 1) for _ in range(2))
        a = torch.rand(len(x), dtype=x.dtype, device=x.device)
        between = torch.lerp(one, other, a[:, None, None, None])
        losses = cross_entropy(model(torch.cat([one, other, between])), y.repeat(3))
        at_one, at_other, at_between = losses.chunk(3)
        a = a.to(losses.dtype)
        error = (at_between - (1 - a) * at_one - a * at_other).square().mean()
        weight = self._weight(batch, memory, error.detach())
        terms = {"classify": batch.mean(cross_entropy(logits, batch.target)), "linear": weight * error}
        return Losses(terms, logits, {"linear": error.detach(), "linear_weight": weight})

    def _weight(self, batch: Batch, memory: Memory | None, error: Tensor) -> Tensor:
        """The weight of this step; keeps what the next one needs."""
        if memory is None:
            return torch.full_like(error, self.lam)
        weight: Tensor
        steps, mean, spread, weight = memory["history"].read(batch).to(error.dtype)
        limit = mean + self.sensitivity * (spread / steps.clamp_min(1)).sqrt()
        following = torch.where((steps > 2) & (error > limit), self.lam, self.decay * weight)
        new_mean = mean + (error - mean) / (steps + 1)
        new_spread = spread + (error - mean) * (error - new_mean)
        memory["history"].write(batch, torch.stack([steps + 1, new_mean, new_spread, following]))
        return weight
