"""FGSM-SDI: one step from where a generator, which learns to mislead the model, begins."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.generator import generator
from regmix.methods.memory import Memory, Setup
from regmix.methods.shared import check_attack
from regmix.methods.storage import OneForAll
from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Batch, Clock, Images, Losses, Tag, require


@dataclass(frozen=True)
class FgsmSdi(Method):
    """Cross-entropy after one step from the perturbation that a generator makes of an image and its gradient.

    With s = sign(grad CE(f(x), y)), G a small convolutional network whose output is eps tanh(..), d = P[G(x, s)] and

        delta = P[d + step_size eps sign(grad CE(f(x + d), y))]
        loss  = CE(f(x + delta), t)

    In every `refresh`-th step, counted within an epoch, G first takes a step of Adam (rate 0.001, weight decay 0.0005)
    up the same loss, in train mode and without a gradient through the sign; for the model's own step it is in
    evaluation mode.

    Source: the public code of FGSM-SDI (jiaxiaojunQAQ/FGSM-SDI, arXiv 2110.05007; published label mass 0.5).
    Deviations: every point is clipped to [0, 1], the code clips none; of several processes the images of rank 0 train
    G; other norms than L-inf replace eps sign by the steepest direction.
    """

    title = "FGSM-SDI"
    needs_clock = True
    name: Tag[Literal["fgsm_sdi"]] = field(default="fgsm_sdi", kw_only=True)
    step_size: float = 1.0
    """Length of the step in units of eps."""
    refresh: int = 20
    """Steps after which the generator learns (published: 20)."""

    def __post_init__(self) -> None:
        check_attack(1, self.step_size)
        require(self.refresh >= 1, f"method refresh is {self.refresh}; it must be at least 1")

    def memory(self, setup: Setup) -> Memory:
        state = generator(setup.shape[0]).fresh(setup.device)
        part = OneForAll(tuple(state.shape), setup.device)
        part.load(state)
        return Memory(generator=part)

    def phase(self, clock: Clock) -> bool:
        return clock.step % self.refresh == 0

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        assert memory is not None, "fgsm_sdi keeps a memory"
        x, g = batch.x, generator(batch.x.shape[1])
        gradient = ascend(model, x, batch.y, threat, start=torch.zeros_like(x), steps=1, step_size=0.0).gradient
        seen = torch.cat([x, gradient.sign()], 1)
        state = memory["generator"].read(batch)
        if self.phase(clock):
            weights, statistics, *_ = g.parts(state.clone())
            with torch.enable_grad():
                weights = weights.detach().requires_grad_()
                made = threat.project(threat.eps * g(weights, statistics, seen, train=True).to(x.dtype).tanh(), x)
                loss = cross_entropy(model(x + self._end(model, batch, threat, made)), batch.target).mean()
                (uphill,) = torch.autograd.grad(loss, weights)
            state = g.stepped(state, statistics, -uphill)
            memory["generator"].write(batch, state)
        weights, statistics, *_ = g.parts(state)
        made = threat.project(threat.eps * g(weights, statistics, seen, train=False).to(x.dtype).tanh(), x).detach()
        logits = model(x + self._end(model, batch, threat, made))
        return Losses({"classify": batch.mean(cross_entropy(logits, batch.target))}, logits, {})

    def _end(self, model: nn.Module, batch: Batch, threat: Threat, start: Images) -> Images:
        """The end of the step; its gradient is that of the start, where nothing is clipped."""
        ascent = ascend(model, batch.x, batch.y, threat, start=start, steps=1, step_size=0.0)
        return threat.project(start + self.step_size * threat.eps * threat.direction(ascent.gradient), batch.x)
