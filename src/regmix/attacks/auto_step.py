"""The ascent under APGD, whose rows choose their own step size."""

from typing import NamedTuple

import torch
from torch import Tensor

from regmix.attacks.base import fooled
from regmix.attacks.rows import Rows
from regmix.objectives import margin
from regmix.threats import Threat
from regmix.types import Images, Labels, Model, Objective, PerExample

RHO, MOMENTUM = 0.75, 0.75


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
    least: PerExample


def look(
    model: Model, objective: Objective, images: Images, y: Labels, target: Tensor
) -> tuple[PerExample, Images, Tensor, PerExample]:
    """The objective, its gradient, which images are misclassified, and the lead of the true class's logit."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
        value = objective(logits, target)
        (gradient,) = torch.autograd.grad(value.sum(), images)
    lead = margin(logits.detach(), y)
    return value.detach(), gradient, fooled(model, images.detach(), lead, y), -lead


def climb(
    model: Model, x: Images, y: Labels, target: Tensor, threat: Threat, objective: Objective, steps: int,
    start: Images, rows: Rows,
) -> Tensor:  # fmt: skip
    """One run of APGD (see there) from `start`, over the rows of `x`, which are those that `rows` has left.

    Rows that it breaks leave; the others are given the perturbation of the largest objective(logits, target). Returns,
    for those that are left, the least lead of the true class's logit that was seen.
    """

    delta = threat.project(start, x)
    value, gradient, out, lead = look(model, objective, x + delta, y, target)
    s = _State(
        x, y, target, delta, delta, value, gradient, delta, value, gradient, torch.full_like(value, 2 * threat.eps),
        value, torch.ones_like(out), torch.zeros_like(value), lead,
    )  # fmt: skip
    window, since = max(int(0.22 * steps), 1), 0
    for step in range(steps):
        s = _State(*rows.leave(out, s.delta, *s))
        if not len(s.x):
            return s.least
        share = MOMENTUM if step else 1.0
        ahead = threat.project(s.delta + s.size.view(-1, 1, 1, 1) * threat.direction(s.gradient), s.x)
        delta = threat.project(s.delta + share * (ahead - s.delta) + (1 - share) * (s.delta - s.before), s.x)
        value, gradient, out, lead = look(model, objective, s.x + delta, s.y, s.target)
        better = value > s.best_value
        s = s._replace(
            before=s.delta, delta=delta, value=value, gradient=gradient, rises=s.rises + (value > s.value),
            best=where(better, delta, s.best), best_gradient=where(better, gradient, s.best_gradient),
            best_value=torch.where(better, value, s.best_value), least=torch.minimum(s.least, lead),
        )  # fmt: skip
        since += 1
        if since == window:
            halve = ~out & ((s.rises <= RHO * window) | (~s.halved & (s.checked >= s.best_value)))
            s = s._replace(
                size=torch.where(halve, s.size / 2, s.size), delta=where(halve, s.best, s.delta),
                gradient=where(halve, s.best_gradient, s.gradient), checked=s.best_value, halved=halve,
                rises=torch.zeros_like(s.rises),
            )  # fmt: skip
            window, since = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)), 0
    s = _State(*rows.leave(out, s.delta, *s))
    rows.delta[rows.left] = s.best
    return s.least


def where(rows: Tensor, one: Images, other: Images) -> Images:
    """Per row, one or the other."""
    return torch.where(rows.view(-1, 1, 1, 1), one, other)
