"""Square: a black-box attack by random search, which uses logits but no gradients."""

import math
from dataclasses import dataclass

import torch

from regmix.attacks.attempt import Attempt
from regmix.attacks.base import Screened, Whole, fooled
from regmix.attacks.rows import Rows, put
from regmix.attacks.squares import grid, propose_linf, propose_pointed, stripes
from regmix.draws import PerImage
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed
from regmix.threats import Linf, Threat
from regmix.types import Images, Labels, Model

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After each of these numbers of queries, the share of pixels that a square covers is halved."""


@dataclass(frozen=True)
class Square:
    """Random search: changes one random square of the perturbation per query, and keeps the change if it helps.

    A change helps if the lead z_y - max_{c != y} z_c becomes smaller. The attack on a row ends when the row is
    misclassified.

        L-inf:  starts from vertical stripes of +-eps; a query sets every colour channel of the square to +-eps
        L2, L1: starts from a grid of 5 x 5 pointed windows; a query moves the mass of two windows, and what is left
                of the budget eps, into the first of them

    Source: arXiv 1912.00049, with the schedule of its public code for 10,000 queries (as in AutoAttack). Deviation:
    every row draws its own squares.
    """

    queries: int = 5000
    """Forward passes per image."""
    share: float = 0.8
    """Share of the pixels that the first squares cover."""
    seed: int = 0
    """Seed of the random squares."""

    @property
    def passes(self) -> int:
        return self.queries

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self.attempt(model, x, y, threat).delta

    @torch.no_grad()
    def attempt(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """Every row is attacked; the queries to the first misclassification are counted."""
        attacked, queries = torch.ones_like(y, dtype=torch.bool), torch.full_like(y, -1)
        begin, propose = (stripes, propose_linf) if isinstance(threat, Linf) else (grid, propose_pointed)
        rows, draws = Rows(x), PerImage(x, self.seed)
        # Under L2 and L1 a proposal changes the whole perturbation, so nothing is computed incrementally.
        near = model.nearby() if isinstance(model, Screened) and isinstance(threat, Linf) else Whole(model)
        with borrowed(model):
            images = x + threat.project(begin(x, threat, draws), x)
            value = margin(model(images), y)
            out = fooled(model, images, value, y)
            for query in range(1, self.queries):
                queries[rows.left] = torch.where(out, query, queries[rows.left])
                x, y, images, value, draws.keys = rows.leave(out, images - x, x, y, images, value, draws.keys)
                near.leave(out)
                if not len(x):
                    return Attempt(rows.delta, attacked, queries)
                area = self.share / 2 ** sum(query - 1 > halving for halving in HALVINGS) * x.shape[2] * x.shape[3]
                side = max(1, round(math.sqrt(area)))
                trial = propose(x, images, threat, side, draws)
                new = margin(near(images, trial, side), y)
                better = new > value
                near.keep(better)
                out = fooled(model, trial, torch.where(better, new, float("-inf")), y)
                images, value = put(better, trial, images), put(better, new, value)
            queries[rows.left] = torch.where(out, self.queries, queries[rows.left])
            rows.leave(out, images - x)
        rows.delta[rows.left] = (images - x)[~out]
        return Attempt(rows.delta, attacked, queries)
