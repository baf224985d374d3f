"""APGD: projected gradient ascent that chooses its own step size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from regmix.attacks.base import Rows, borrowed, fooled
from regmix.objectives import cross_entropy, dlr, targeted_dlr
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, Objective, PerExample

RHO, MOMENTUM = 0.75, 0.75


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD: ascent with momentum from a random start on the ball, which halves its step size where it stalls.

        z       = P[d_k + s direction(g_k)]
        d_{k+1} = P[d_k + 0.75 (z - d_k) + 0.25 (d_k - d_{k-1})]

    s begins at 2 eps. At checkpoints, whose distance shrinks from 0.22 to 0.06 of the steps, a row halves s and goes
    back to its best iterate if less than 75 % of its steps since the last one increased the loss, or if neither s nor
    its best loss has changed there. A row leaves when it is misclassified.

    Source: arXiv 2003.01690 and its public code (AutoAttack). Deviations: for L2 the first perturbation is of length
    eps before it is clipped to the image's range; the first checkpoint counts the first step's increase over the
    start.
    """

    loss: Literal["ce", "dlr"] = "ce"
    """Cross-entropy, or the difference of logits ratio."""
    targets: int = 0
    """How many wrong classes to aim at, one after the other, from the likeliest on, with the targeted DLR loss (0: no
    target). A model with C classes has C - 1."""
    steps: int = 100
    restarts: int = 1
    seed: int = 0
    """Seeds the starts."""

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        generator = torch.Generator(x.device).manual_seed(self.seed)
        rows = Rows(x)
        with borrowed(model):
            for objective, target in self._goals(model, x, y):
                left = rows.left
                if len(left):
                    draw = threat.uniform(x, generator)[left]
                    start = draw * (threat.eps / threat.norm(draw).clamp_min(1e-12)).view(-1, 1, 1, 1)
                    _climb(model, x[left], y[left], target[left], threat, objective, self.steps, start, rows)
        return rows.delta

    def _goals(self, model: Model, x: Images, y: Labels) -> Iterator[tuple[Objective, Tensor]]:
        for _ in range(self.restarts):
            if not self.targets:
                yield (cross_entropy if self.loss == "ce" else dlr), y
        if self.targets:
            for wrong in likeliest_wrong(model, x, y, self.targets).unbind(1):
                for _ in range(self.restarts):
                    yield targeted_dlr, torch.stack([y, wrong], 1)


@torch.no_grad()
def likeliest_wrong(model: Model, x: Images, y: Labels, most: int) -> Tensor:
    """The wrong classes of every image, int [B, min(most, C - 1)], from the largest logit on."""
    logits = model(x).scatter(1, y[:, None], float("-inf"))
    return logits.topk(min(most, logits.shape[1] - 1), 1).indices


class _State(NamedTuple):
    """What a row takes along; every tensor has a row per example."""

    x: Images
    y: Labels
    target: Tensor
    delta: Images
    before: Images
    value: PerExample
    gradient: Images
    best: Images
    best_value: PerExample
    best_gradient: Images
    size: Tensor
    checked: PerExample
    halved: Tensor
    rises: PerExample


def _climb(
    model: Model, x: Images, y: Labels, target: Tensor, threat: Threat, objective: Objective, steps: int,
    start: Images, rows: Rows,
) -> None:  # fmt: skip
    """One run over the rows that are left; what it leaves unbroken keeps its best perturbation."""

    def look(x: Images, y: Labels, target: Tensor, delta: Images) -> tuple[PerExample, Images, Tensor]:
        images = (x + delta).requires_grad_()
        with torch.enable_grad():
            logits = model(images)
            value = objective(logits, target)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return value.detach(), gradient, fooled(model, images.detach(), logits.detach(), y)

    delta = threat.project(start, x)
    value, gradient, out = look(x, y, target, delta)
    s = _State(
        x, y, target, delta, delta, value, gradient, delta, value, gradient, torch.full_like(value, 2 * threat.eps),
        value, torch.ones_like(out), torch.zeros_like(value),
    )  # fmt: skip
    window, since = max(int(0.22 * steps), 1), 0
    for step in range(steps):
        s = _State(*rows.leave(out, s.delta, *s))
        if not len(s.x):
            return
        share = MOMENTUM if step else 1.0
        ahead = threat.project(s.delta + s.size.view(-1, 1, 1, 1) * threat.direction(s.gradient), s.x)
        delta = threat.project(s.delta + share * (ahead - s.delta) + (1 - share) * (s.delta - s.before), s.x)
        value, gradient, out = look(s.x, s.y, s.target, delta)
        better = value > s.best_value
        s = s._replace(
            before=s.delta, delta=delta, value=value, gradient=gradient, rises=s.rises + (value > s.value),
            best=_where(better, delta, s.best), best_gradient=_where(better, gradient, s.best_gradient),
            best_value=torch.where(better, value, s.best_value),
        )  # fmt: skip
        since += 1
        if since == window:
            halve = ~out & ((s.rises <= RHO * window) | (~s.halved & (s.checked >= s.best_value)))
            s = s._replace(
                size=torch.where(halve, s.size / 2, s.size), delta=_where(halve, s.best, s.delta),
                gradient=_where(halve, s.best_gradient, s.gradient), checked=s.best_value, halved=halve,
                rises=torch.zeros_like(s.rises),
            )  # fmt: skip
            window, since = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)), 0
    s = _State(*rows.leave(out, s.delta, *s))
    rows.delta[rows.left] = s.best


def _where(rows: Tensor, one: Images, other: Images) -> Images:
    return torch.where(rows.view(-1, 1, 1, 1), one, other)
