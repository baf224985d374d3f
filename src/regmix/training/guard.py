"""What the guard against catastrophic overfitting measures, and what a run continues with after an alarm."""

from dataclasses import fields

import torch
from torch.nn import functional as F

from regmix.attacks import ascend
from regmix.methods import Method, NFgsm, PgdAt
from regmix.methods.mutual import Mutual
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model

REMEDIES = 2
"""How often a run may be rolled back."""


def remedy(method: Method, level: int) -> Method:
    """What a run continues with after it was rolled back for the level-th time, with the method's mutual terms if any.

    First N-FGSM (arXiv 2202.01181), which costs no more than FGSM; if that collapses too, PGD-AT with ten steps.
    """
    mutual = getattr(method, "mutual", Mutual())
    if isinstance(method, Mutual):
        mutual = Mutual(**{field.name: getattr(method, field.name) for field in fields(Mutual)})
    return NFgsm(mutual=mutual) if level == 1 else PgdAt(mutual=mutual)


def alignment(model: Model, batch: Batch, threat: Threat) -> float:
    """Mean over the examples of cos(g(x), g(x + u)), g the input gradient of cross-entropy and u uniform in the ball.

    Near 1 the loss is nearly linear within the ball; it falls when single-step attacks lose their hold. Source:
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
