"""LIET: one step from a perturbation per class, with a Jensen-Shannon term that grows during training."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import batchnorm_mode, check_weights
from regmix.methods.storage import PerClass
from regmix.objectives import cross_entropy, kl, log_probabilities, smooth_by
from regmix.threats import Linf, Threat
from regmix.types import Batch, Clock, Labels, Logits, Losses, Tag, Target, require


@dataclass(frozen=True)
class Liet(Method):
    """One step from the perturbation of each image's class; a term keeps the output close to that at the start.

    Every `refresh` steps, with one uniformly grey image per class c and BatchNorm in evaluation mode:

        v_c   = eps sign(grad CE(f(0.5), t_c))

    In every step, with r ~ U(noise_low, noise_high) and a sign s = +-1 of the whole batch:

        delta = v_y, of which each element is replaced by noise * U(-eps, eps) with probability r
        x_0   = clip(x + s delta, 0, 1),   x_1 = P[x_0 + eps sign(grad CE(f(x_0), t'))]
        loss  = CE(f(x_1), t) + lam (epoch + 1) / epochs * JS(f(x_0), f(x_1))

    with epoch counted from 0 and JS(p, q) = (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2. Gradients flow through
    both outputs. The labels t, t' and t_c give `mass` to the true class and split the rest at random among the other
    classes, each with a draw of its own; where labels are soft already, t and t' are as given. Steps are counted within
    an epoch.

    Source: the public code of LIET (fzjcdt/LIET) and of the FastAT benchmark (arXiv 2604.22853), which agree.
    Deviations: only BatchNorm, and not the whole model, is in evaluation mode for v; each of several processes draws r
    and s for its share of the batch; other norms than L-inf replace eps sign by the steepest direction.
    """

    title = "LIET"
    needs_clock = True
    name: Tag[Literal["liet"]] = field(default="liet", kw_only=True)
    lam: float = 100.0
    """Final weight of the divergence (published: CIFAR-10 100, CIFAR-100 200)."""
    reduction: Literal["element", "example"] = "example"
    """Mean of the divergence over the examples, as in the code, or over every element [B, classes]."""
    mass: float = 0.4
    """Probability of the true class in the random soft labels (published: CIFAR-10 0.4, CIFAR-100 0.8)."""
    label_weights: Literal["uniform", "exponential"] = "uniform"
    """Random weights of the other classes, before they are normalised: U(0, 1), as in the code, or exponential."""
    attack_labels: Literal["hard", "soft"] = "soft"
    """Labels for the attack and for the perturbations of the classes: soft labels, as in the code, or class indices."""
    refresh: int = 20
    """Steps after which the perturbations of the classes are computed again."""
    noise_low: float = 0.1
    """Smallest share of elements that noise replaces, in [0, 1]."""
    noise_high: float = 0.5
    """Largest share of elements that noise replaces, in [0, 1]."""
    noise: float | None = None
    """Size of the noise in units of eps; None: 1, and 2 above 8/255 under L-inf, as in the code."""
    project: bool | None = None
    """Clip x_1 to the ball of eps around x; None: yes, but not above 8/255 under L-inf, as in the code."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam, noise=self.noise or 0.0)
        require(0 < self.mass <= 1, f"method mass is {self.mass}; it must lie in (0, 1]")
        require(self.refresh >= 1, f"method refresh is {self.refresh}; it must be at least 1")
        within = 0 <= self.noise_low <= self.noise_high <= 1
        require(
            within, f"method noise_low and noise_high are {self.noise_low}, {self.noise_high}; 0 <= low <= high <= 1"
        )

    def memory(self, setup: Setup) -> Memory:
        return Memory(delta=PerClass(setup.classes, setup.shape, setup.device))

    def phase(self, clock: Clock) -> tuple[bool, int, int]:
        """Whether the perturbations of the classes are computed anew, and what the weight depends on."""
        return clock.step % self.refresh == 0, clock.epoch, clock.epochs

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "liet keeps a memory"
        x = batch.x
        classes = len(memory["delta"].gather())
        if clock.step % self.refresh == 0:
            attacked = self._attacked(torch.arange(classes, device=x.device), classes, x.dtype)
            memory["delta"].write(batch, _class_perturbations(model, x, attacked, threat))
        wide = isinstance(threat, Linf) and threat.eps > 8 / 255
        noise = self.noise if self.noise is not None else 1 + wide
        share = self.noise_low + (self.noise_high - self.noise_low) * torch.rand((), dtype=x.dtype, device=x.device)
        noisy = torch.rand_like(x) < share
        delta = torch.where(noisy, noise * threat.uniform(x), memory["delta"].read(batch))
        delta = torch.where(torch.rand((), device=x.device) < 0.5, -delta, delta)
        start = (x + delta).clamp(0, 1) - x
        given = batch.soft is not None and self.attack_labels == "soft"
        attacked = batch.target if given else self._attacked(batch.y, classes, x.dtype)
        ascent = ascend(model, x, attacked, threat, start=start, steps=1, step_size=0.0, keep_graph=True)
        moved = start + threat.eps * threat.direction(ascent.gradient)
        project = self.project if self.project is not None else not wide
        logits = model(x + (threat.project(moved, x) if project else (x + moved).clamp(0, 1) - x))
        target = batch.soft if batch.soft is not None else self._random_labels(batch.y, classes, x.dtype)
        divergence = _jensen_shannon(ascent.first_logits, logits)
        weight = self.lam * (clock.epoch + 1) / clock.epochs / (classes if self.reduction == "element" else 1)
        terms = {"classify": batch.mean(cross_entropy(logits, target)), "diverge": weight * divergence}
        return Losses(terms, logits, {"diverge": divergence.detach()})

    def _attacked(self, y: Labels, classes: int, dtype: torch.dtype) -> Target:
        return self._random_labels(y, classes, dtype) if self.attack_labels == "soft" else y

    def _random_labels(self, y: Labels, classes: int, dtype: torch.dtype) -> Logits:
        """`mass` on the true class, and random shares of the rest on the others."""
        shares = torch.empty((len(y), classes), dtype=dtype, device=y.device)
        shares = shares.uniform_() if self.label_weights == "uniform" else shares.exponential_()
        return smooth_by(y, shares, self.mass)


def _class_perturbations(model: nn.Module, x: Tensor, labels: Target, threat: Threat) -> Tensor:
    grey = torch.full_like(x[:1], 0.5).expand(len(labels), *x.shape[1:]).contiguous()
    with batchnorm_mode(model, "eval"):
        ascent = ascend(model, grey, labels, threat, start=torch.zeros_like(grey), steps=1, step_size=0.0)
    return threat.eps * threat.direction(ascent.gradient)


def _jensen_shannon(one: Logits, other: Logits) -> Tensor:
    log_p, log_q = log_probabilities(one), log_probabilities(other)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)).mean() / 2
