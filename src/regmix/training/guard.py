"""What the guard against catastrophic overfitting measures."""

import torch
from torch.nn import functional as F

from regmix.attacks import ascend
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model


def alignment(model: Model, batch: Batch, threat: Threat) -> float:
    """Mean over the examples of cos(g(x), g(x + u)), g the input gradient of cross-entropy and u uniform in the ball.

    Near 1 the loss is nearly linear within the ball; it falls when single-step attacks stop working. Source:
    GradAlign, arXiv 2007.02617.
    """
    x = batch.x
    noise = threat.uniform(x, torch.Generator(x.device).manual_seed(0))
    with borrowed(model):
        here, there = (
            ascend(model, x, batch.y, threat, start=start, steps=1, step_size=0.0).gradient.flatten(1)
            for start in (torch.zeros_like(x), threat.project(noise, x))
        )
    return float(F.cosine_similarity(here, there, dim=1).mean())
