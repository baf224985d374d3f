"""ZeroGrad: FGSM with a random start that does not follow small gradients."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.shared import check_attack
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class ZeroGrad(Method):
    """Cross-entropy after a step in which the smallest elements of every example's gradient are zero.

    With delta_0 = P[U(-eps, eps)] and g = grad CE(f(x + delta_0), y), g_i = 0 where |g_i| lies below the q-quantile of
    the example's |g| (linearly interpolated), and

        delta = P[delta_0 + step_size eps sign(g)]

    The start is clipped to the image's range, and nothing but the gradient's signs is scaled, as in the public code.
    Source: ZeroGrad, arXiv 2103.15476 and its public code, whose defaults these are.
    """

    title = "ZeroGrad"
    name: Tag[Literal["zero_grad"]] = field(default="zero_grad", kw_only=True)
    q: float = 0.35
    """Share of every example's gradient that is set to zero, in [0, 1) (the code's default: 0.35)."""
    step_size: float = 2.0
    """Length of the step in units of eps."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        require(0 <= self.q < 1, f"method q is {self.q}; it must lie in [0, 1)")

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        start = threat.project(threat.uniform(x), x)
        gradient = ascend(model, x, batch.y, threat, start=start, steps=1, step_size=0.0).gradient
        size = gradient.abs()
        large = torch.where(size < _quantile(size, self.q), 0.0, gradient)
        delta = threat.project(start + self.step_size * threat.eps * threat.direction(large), x)
        logits = model(x + delta)
        return Losses({"classify": batch.mean(cross_entropy(logits, batch.target))}, logits, {})


def _quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile of every example [B, 1, 1, 1]; torch.quantile refuses more than 16 million elements."""
    flat = values.flatten(1)
    place, share = divmod(q * (flat.shape[1] - 1), 1)
    low = flat.kthvalue(int(place) + 1, dim=1).values
    high = flat.kthvalue(min(int(place) + 2, flat.shape[1]), dim=1).values
    return torch.lerp(low, high, share).view(-1, *[1] * (values.ndim - 1))
