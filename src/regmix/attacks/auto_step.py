"""The ascent of APGD under L-inf and L2: every row adapts its own step size."""

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
    """State of the ascent; every tensor has one row per example still under attack."""

    x: Images
    y: Labels
    target: Tensor
    delta: Images
    before: Images  # the iterate before delta
    value: PerExample
    gradient: Images
    best: Images  # the iterate with the largest objective
    best_value: PerExample
    best_gradient: Images
    size: Tensor  # step size
    checked: PerExample  # best_value at the last checkpoint
    halved: Tensor  # whether the last checkpoint halved the step size
    rises: PerExample  # steps since the last checkpoint that increased the objective
    least: PerExample  # the smallest lead of the true class's logit so far


def look(
    model: Model, objective: Objective, images: Images, y: Labels, target: Tensor
) -> tuple[PerExample, Images, Tensor, PerExample]:
    """The objective, its input gradient, which images are misclassified, and the lead of the true class's logit.

    The lead is z_y - max_{c != y} z_c.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
        value = objective(logits, target)
        (gradient,) = torch.autograd.grad(value.sum(), images)
    lead, images = margin(logits.detach(), y), images.detach()
    # Step sizes follow from these values: logits of another type must not change that of the images.
    return value.detach().to(images.dtype), gradient, fooled(model, images, lead, y), -lead.to(images.dtype)


def climb(
    model: Model, x: Images, y: Labels, target: Tensor, threat: Threat, objective: Objective, steps: int,
    start: Images, rows: Rows,
) -> Tensor:  # fmt: skip
    """One run of APGD from `start`; see `Apgd` for the formula.

    The rows of `x` are those in `rows.left`. A row that is misclassified leaves with its perturbation; the others get
    the perturbation with the largest objective(logits, target). Returns, for the rows that remain, the smallest lead of
    the true class's logit over the run.
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


def where(rows: Tensor, first: Images, second: Images) -> Images:
    """The images of `first` in the rows where `rows` is true, of `second` in the others."""
    return torch.where(rows.view(-1, 1, 1, 1), first, second)
