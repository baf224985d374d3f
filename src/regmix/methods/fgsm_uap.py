"""FGSM-UAP and FGSM-CUAP: one step from a universal perturbation, one for all images or one per class."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import check_weights, mean_one, proximal_losses
from regmix.methods.storage import OneForAll, PerClass
from regmix.threats import Threat
from regmix.types import Batch, Clock, Images, Losses, Tag, require


@dataclass(frozen=True)
class FgsmUap(Method):
    """One step from a perturbation that all images share; a term keeps the output close to that at the start.

    With u the shared perturbation, which begins at radius sign(U(-1, 1)), delta = P[u] and
    g = grad CE(f(x + delta), y):

        delta' = P[delta + eps sign g]
        loss   = CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2)          over every logit
        m     <- mean over the batch of g / mean|g| + mu m
        u     <- clip(u + radius sign m, -radius, radius)

    Source: the public code of FGSM-UAP (fzjcdt/fgsm_uap) and of the FastAT benchmark (arXiv 2604.22853); the published
    label mass is 0.64. The attack maximises the cross-entropy of the smoothed label, as there. Deviations: in both
    codes the backward pass of the loss changes g in place before g moves u, which is not in the formula; g is divided
    by its mean absolute element, where the code divides by the sum, so that a smaller last batch counts the same; of
    several processes the images of rank 0 move u; on a GPU the sums depend on the order of additions; other norms
    replace eps sign by the steepest direction.
    """

    title = "FGSM-UAP"
    needs_clock = True
    name: Tag[Literal["fgsm_uap"]] = field(default="fgsm_uap", kw_only=True)
    lam: float = 10.0
    """Weight of the squared distance of logits, averaged over every element."""
    mu: float = 0.3
    """Momentum of the gradient, in [0, 1)."""
    radius: float = 1.25
    """Largest size of the shared perturbation in units of eps (published: 10/255 at eps 8/255)."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(0 <= self.mu < 1, f"method mu is {self.mu}; it must lie in [0, 1)")
        require(0 < self.radius < float("inf"), f"method radius is {self.radius}; it must be positive, in units of eps")

    def memory(self, setup: Setup) -> Memory:
        return Memory(
            delta=OneForAll((1, *setup.shape), setup.device), momentum=OneForAll((1, *setup.shape), setup.device)
        )

    def phase(self, clock: Clock) -> bool:
        return clock.epoch == clock.step == 0

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, f"{self.name} keeps a memory"
        x, (groups, noise) = batch.x, self.chosen(model, batch, threat, memory)
        shared, momentum = memory["delta"].gather().to(x.dtype), memory["momentum"].gather().to(x.dtype)
        if self.phase(clock):
            shared = self.radius * threat.corner(torch.full_like(x[:1], 0.5).expand_as(shared).contiguous())
        start = threat.project(noise + shared[groups], x)
        ascent = ascend(model, x, batch.target, threat, start=start, steps=1, step_size=threat.eps, keep_graph=True)
        counts = torch.zeros_like(shared[:, :1, :1, :1]).index_add_(0, groups, torch.ones_like(x[:, :1, :1, :1]))
        sums = torch.zeros_like(shared).index_add_(0, groups, mean_one(ascent.gradient))
        there = counts > 0
        momentum = torch.where(there, sums / counts.clamp_min(1) + self.mu * momentum, momentum)
        moved = self._clip(shared + self.radius * threat.eps * threat.direction(momentum), threat)
        memory["delta"].write(batch, torch.where(there, moved, shared))
        memory["momentum"].write(batch, momentum)
        return proximal_losses(model, batch, ascent, self.lam)

    def chosen(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory) -> tuple[Tensor, Images]:
        """Which of the perturbations each image has, and what is added to it."""
        return torch.zeros_like(batch.y), torch.zeros_like(batch.x)

    def _clip(self, shared: Images, threat: Threat) -> Images:
        """Brings perturbations into the ball of `radius`, at a grey image, which leaves them room."""
        return self.radius * threat.project(shared / self.radius, torch.full_like(shared, 0.5))


@dataclass(frozen=True)
class FgsmCuap(FgsmUap):
    """FGSM-UAP with a perturbation u and a momentum m per class, which the images of the class move.

    Source: the public code of the FastAT benchmark (fgsm_cuap.py). Formula and deviations: see FgsmUap.
    """

    title = "FGSM-CUAP"
    name: Tag[Literal["fgsm_cuap"]] = field(default="fgsm_cuap", kw_only=True)  # type: ignore[assignment]

    def memory(self, setup: Setup) -> Memory:
        classes, shape, device = setup.classes, setup.shape, setup.device
        return Memory(delta=PerClass(classes, shape, device), momentum=PerClass(classes, shape, device))

    def chosen(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory) -> tuple[Tensor, Images]:
        return batch.y, torch.zeros_like(batch.x)
