"""PMA's objective: the margin of probabilities. `Apgd("pm")` ascends it."""

import torch

from regmix.objectives import hard, log_probabilities
from regmix.types import Logits, PerExample, Target


def probability_margin(logits: Logits, target: Target) -> PerExample:
    """1 + max_{c != y} p_c - p_y with p = softmax(logits), in [0, 2]: above 1 exactly where it is misclassified.

    It is computed as max_{c != y} p_c + sum_{c != y} p_c, so that neither it nor its gradient is lost to rounding where
    p_y is nearly 1.

    Source: arXiv 2411.15210 (PMA), of which only this objective is known here; the constant 1 changes no gradient. The
    ascent is a field of the attack: APGD's, with its steps, restarts and step size.
    """
    y = hard(target)[:, None]
    log_p = log_probabilities(logits)
    others = log_p.scatter(1, y, float("-inf"))
    return others.amax(1).exp() + torch.logsumexp(others, 1).exp()
