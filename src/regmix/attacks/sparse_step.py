"""The ascent of APGD under L1: every row adapts how many elements a step changes."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from regmix.attacks.auto_step import look, where
from regmix.attacks.rows import Rows
from regmix.threats import L1, sparse_sign
from regmix.types import Images, Labels, Model, Objective, PerExample

WIDER = ((3, 0.3), (2, 0.3), (1, 0.4))
"""Radii in units of eps, and the share of the steps for each."""


class _State(NamedTuple):
    """State of the ascent; every tensor has one row per example still under attack."""

    x: Images
    y: Labels
    target: Tensor
    delta: Images
    gradient: Images
    best: Images  # the iterate with the largest objective
    best_value: PerExample
    best_gradient: Images
    size: PerExample  # step size
    changed: PerExample  # elements that the best iterate changes, at the last checkpoint
    least: PerExample  # the smallest lead of the true class's logit so far


def climb_sparsely(
    model: Model, x: Images, y: Labels, target: Tensor, threat: L1, objective: Objective, steps: int,
    start: Images, rows: Rows,
) -> Tensor:  # fmt: skip
    """One run of APGD in L1 (arXiv 2103.01208), with the same arguments and result as `climb`.

        d_{k+1} = P[d_k + s sign(g_top) / |g_top|_0]

    g_top holds the largest elements of g_k in absolute value: 2/3 as many as the best iterate changes. The step size s
    begins at eps. At every checkpoint, if the best iterate has become sparser by 5 %, s returns to eps and the row to
    its best iterate; otherwise s is divided by 1.5, down to eps / 10. Three such ascents follow one another, with the
    radii 3 eps, 2 eps and eps.
    """
    done, delta = 0, start
    for times, part in WIDER:
        last = times == 1
        number = steps - done if last else math.ceil(part * steps)
        wide = replace(threat, eps=times * threat.eps)
        s = _phase(model, x, y, target, wide, objective, number, delta, rows if last else None)
        done, delta = done + number, s.best
    rows.delta[rows.left] = s.best
    return s.least


def _phase(
    model: Model, x: Images, y: Labels, target: Tensor, threat: L1, objective: Objective, steps: int,
    start: Images, rows: Rows | None,
) -> _State:  # fmt: skip
    """An ascent at one radius. Rows leave only if `rows` is given."""
    delta = threat.project(start, x)
    value, gradient, out, lead = look(model, objective, x + delta, y, target)
    elements, changed = x[0].numel(), _changed(delta)
    every = max(int(0.04 * steps), 1)
    s = _State(
        x, y, target, delta, gradient, delta, value, gradient, torch.full_like(value, threat.eps),
        changed, lead,
    )  # fmt: skip
    for step in range(1, steps + 1):
        if rows is not None:
            s = _State(*rows.leave(out, s.delta, *s))
            if not len(s.x):
                return s
        delta = threat.project(
            s.delta + s.size.view(-1, 1, 1, 1) * _sparse(s.gradient, s.changed / elements / 1.5), s.x
        )
        value, gradient, out, lead = look(model, objective, s.x + delta, s.y, s.target)
        better = value > s.best_value
        s = s._replace(
            delta=delta, gradient=gradient, best=where(better, delta, s.best), least=torch.minimum(s.least, lead),
            best_value=torch.where(better, value, s.best_value), best_gradient=where(better, gradient, s.best_gradient),
        )  # fmt: skip
        if step % every == 0:
            changed = _changed(s.best)
            sparser = changed < 0.95 * s.changed
            # A row that leaves keeps the iterate that broke it.
            back = sparser & ~out
            s = s._replace(
                delta=where(back, s.best, delta), gradient=where(back, s.best_gradient, gradient), changed=changed,
                size=torch.where(sparser, threat.eps, (s.size / 1.5).clamp_min(threat.eps / 10)),
            )  # fmt: skip
    return s if rows is None else _State(*rows.leave(out, s.delta, *s))


def _changed(delta: Images) -> PerExample:
    """How many elements differ from 0, per row."""
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)


def _sparse(gradient: Images, share: PerExample) -> Images:
    """A step of L1 length 1: the sign of the given share of every row's elements, those with the largest |gradient|."""
    size = gradient.flatten(1).abs()
    elements = size.shape[1]
    first = ((1 - share) * elements).clamp(0, elements - 1).long()
    return sparse_sign(gradient, size.sort(1).values.gather(1, first[:, None]))
