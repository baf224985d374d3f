"""GradAlign: FGSM with a penalty on gradients that turn within the ball."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory
from regmix.methods.shared import check_weights
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class GradAlign(Method):
    """Cross-entropy after FGSM, and the misalignment of the input gradients at x and at a random point of the ball.

    With g(z) = grad_z CE(f(z), y), u ~ U(-eps, eps) and delta = P[eps sign g(x)]:

        loss = CE(f(x + delta), y) + lam (1 - mean cos(g(x), g(x + u)))

    The mean is over the examples both of whose gradients are not zero. g(x) is the attack's gradient and is held
    constant, as in the public code; the gradient flows through g(x + u), which takes a double backward pass.

    Source: arXiv 2007.02617 and its public code. Deviation: x + u is clipped to the image's range, as the FastAT
    benchmark does; in the code it is not, so that pixels near 0 or 1 are shown up to eps outside of it.
    """

    title = "GradAlign"
    second_order = True
    name: Tag[Literal["grad_align"]] = field(default="grad_align", kw_only=True)
    lam: float = 0.2
    """Weight of the penalty (published for CIFAR-10 at 8/255: 0.2; it grows with eps)."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x, y = batch.x, batch.y
        ascent = ascend(model, x, y, threat, start=torch.zeros_like(x), steps=1, step_size=threat.eps)
        logits = model(x + ascent.delta)
        terms = {"classify": batch.mean(cross_entropy(logits, batch.target))}
        if self.lam == 0:
            return Losses(terms, logits, {})
        noise = threat.project(threat.uniform(x), x).requires_grad_()
        (there,) = torch.autograd.grad(cross_entropy(model(x + noise), y).sum(), noise, create_graph=True)
        misalignment = 1 - _mean_cosine(ascent.gradient, there)
        return Losses(terms | {"align": self.lam * misalignment}, logits, {"align": misalignment.detach()})


def _mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """The mean cosine over the examples in which neither is zero; their length does not matter, however small."""
    one, other = one.flatten(1), other.flatten(1)
    size, other_size = (g.detach().abs().amax(1, keepdim=True) for g in (one, other))
    there = (size > 0) & (other_size > 0)
    cosine = F.cosine_similarity(
        one / torch.where(there, size, 1.0), other / torch.where(there, other_size, 1.0), dim=1
    )
    return (cosine * there[:, 0]).sum() / there.sum().clamp_min(1)
