"""The ascent under APGD in L1, whose rows choose how many elements a step changes."""

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
"""Radii in units of eps, and the share of the steps that each of them gets."""


class _State(NamedTuple):
    """What a row takes along; every tensor has a row per example."""

    x: Images
    y: Labels
    target: Tensor
    delta: Images
    gradient: Images
    best: Images
    best_value: PerExample
    best_gradient: Images
    size: PerExample
    changed: PerExample
    least: PerExample


def climb_sparsely(
    model: Model, x: Images, y: Labels, target: Tensor, threat: L1, objective: Objective, steps: int,
    start: Images, rows: Rows,
) -> Tensor:  # fmt: skip
    """One run of APGD in L1 (arXiv 2103.01208), with the same contract as `climb`.

        d_{k+1} = P[d_k + s sign(g_top) / |g_top|_0],   g_top the elements of g_k that are largest in size

    Their share is 2/3 of the elements that the best iterate changes. s begins at eps; it is divided by 1.5, down to
    eps / 10, as long as the best iterate does not become sparser by 5 %, and begins again at eps from the best iterate
    where it does. Three such ascents follow one another, at 3, 2 and 1 times eps.
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
    """An ascent at one radius; rows leave only where `rows` are given."""
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
            # a row that leaves does so with the iterate that broke it
            back = sparser & ~out
            s = s._replace(
                delta=where(back, s.best, delta), gradient=where(back, s.best_gradient, gradient), changed=changed,
                size=torch.where(sparser, threat.eps, (s.size / 1.5).clamp_min(threat.eps / 10)),
            )  # fmt: skip
    return s if rows is None else _State(*rows.leave(out, s.delta, *s))


def _changed(delta: Images) -> PerExample:
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)


def _sparse(gradient: Images, share: PerExample) -> Images:
    """The sign of a share of the elements of every row, those where |gradient| is largest, as a step of length 1."""
    size = gradient.flatten(1).abs()
    elements = size.shape[1]
    first = ((1 - share) * elements).clamp(0, elements - 1).long()
    return sparse_sign(gradient, size.sort(1).values.gather(1, first[:, None]))
