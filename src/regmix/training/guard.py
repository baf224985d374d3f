"""What the guard against catastrophic overfitting measures."""

import torch
from torch.nn import functional as F

from regmix.attacks import ascend
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model


def alignment(model: Model, batch: Batch, threat: Threat, batch_size: int | None = None) -> float:
    """Mean over the examples of cos(g(x), g(x + u)), g the input gradient of cross-entropy and u uniform in the ball.

    Near 1 the loss is nearly linear within the ball; it falls when single-step attacks stop working. Source:
    GradAlign, arXiv 2007.02617.

    Args:
        batch_size: how many examples are computed at once; None: all.
    """
    x = batch.x
    # Drawn for all examples at once, so that the result does not depend on the batch size.
    noise = threat.project(threat.uniform(x, torch.Generator(x.device).manual_seed(0)), x)
    parts = (torch.split(each, batch_size or len(x)) for each in (x, batch.y, noise))
    cosines = []
    with borrowed(model):
        for some, y, start in zip(*parts, strict=True):
            here, there = (
                ascend(model, some, y, threat, start=delta, steps=1, step_size=0.0).gradient.flatten(1)
                for delta in (torch.zeros_like(some), start)
            )
            cosines.append(F.cosine_similarity(here, there, dim=1))
    return float(torch.cat(cosines).mean())
