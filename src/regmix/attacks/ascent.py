"""Projected gradient ascent on an objective within a threat set: the primitive that every PGD here uses."""

from typing import NamedTuple

import torch
from torch import Tensor

from regmix.objectives import cross_entropy
from regmix.threats import Threat
from regmix.types import Images, Logits, Model, Objective, Target


class Ascent(NamedTuple):
    """The final perturbation, the logits at the start, and the input gradient of the last step."""

    delta: Images
    first_logits: Logits
    gradient: Images


def ascend(
    model: Model,
    x: Images,
    target: Target,
    threat: Threat,
    *,
    start: Images,
    steps: int,
    step_size: float,
    objective: Objective = cross_entropy,
    keep_graph: bool = False,
) -> Ascent:
    """Ascends an objective by projected gradient steps.

        delta_{k+1} = P[delta_k + step_size * direction(grad_delta objective(model(x + delta_k), target))]

    Only the gradient with respect to the perturbation is computed; the parameters' gradients stay as they were. The
    caller chooses the model's mode. Source: PGD, arXiv 1706.06083.

    Args:
        x: images [B, C, H, W] in [0, 1].
        target: class indices [B] or probabilities [B, classes].
        start: the first perturbation [B, C, H, W]; it is not projected.
        steps: number of gradient steps, at least 1.
        step_size: length of a step in pixel units of [0, 1], not relative to eps.
        keep_graph: keep first_logits differentiable with respect to the parameters, so that a loss can reuse the
            attack's first forward pass.
    """
    assert steps >= 1, "an ascent has at least one step"
    delta = start.detach()
    for step in range(steps):
        keep = keep_graph and step == 0
        delta = delta.requires_grad_()
        with torch.enable_grad():
            images = x + delta
            logits = model(images)
            value = objective(logits, target).sum()
        (gradient,) = torch.autograd.grad(value, delta, retain_graph=keep)
        if step == 0:
            first_logits: Tensor = logits if keep else logits.detach()
        delta = threat.project(delta.detach() + step_size * threat.direction(gradient, images.detach()), x)
    return Ascent(delta, first_logits, gradient)
