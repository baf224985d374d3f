"""A guard against catastrophic overfitting, which reads the validation results and says what to do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch.nn import functional as F

from regmix.attacks import ascend, borrowed
from regmix.methods import Method, NFgsm, PgdAt
from regmix.methods.mutual import Mutual
from regmix.threats import Threat
from regmix.types import Batch, Model, require

Action = Literal["continue", "stop", "rollback"]

REMEDIES = 2
"""How often a run may be rolled back."""


@dataclass(frozen=True)
class Guard:
    """Raises an alarm when PGD breaks the model where FGSM no longer does.

    With the accuracies PGD and FGSM on the validation images and the gradient alignment A there (see `alignment`),
    each compared with the best value of the validations before:

        alarm <=> PGD < drop * best PGD  and  (PGD < drop * FGSM  or  A < drop * best A)

    and the fall of PGD is more than three standard errors, sqrt(2 p (1 - p) / n) with p the best PGD accuracy and n the
    number of validation images, which keeps it silent where the model is hardly trained. The first sign alone may be
    ordinary overfitting; together they are what arXiv 2001.03994 and 2007.02617 describe.
    """

    action: Action = "continue"
    """What follows an alarm: a line in the log and the report; besides, the end of the run; or the run goes back to
    its last healthy validation and continues with a remedy: N-FGSM, and after a second collapse PGD-AT."""
    drop: float = 0.5
    """Share of the best accuracy below which PGD accuracy has collapsed."""

    def __post_init__(self) -> None:
        require(0 < self.drop < 1, f"guard drop is {self.drop}; it must lie in (0, 1)")

    def alarm(self, before: Sequence[Mapping[str, float]], now: Mapping[str, float], examples: int) -> str | None:
        """The reason for an alarm in one line, from the validations before and the present one; None if all is well."""
        if not before:
            return None
        pgd, aligned = (max(validation[name] for validation in before) for name in ("pgd", "alignment"))
        signs = [f"PGD accuracy fell from {pgd:.1%} to {now['pgd']:.1%}"]
        if now["pgd"] < self.drop * now["fgsm"]:
            signs.append(f"FGSM accuracy is {now['fgsm']:.1%}")
        if now["alignment"] < self.drop * aligned:
            signs.append(f"gradient alignment fell from {aligned:.2f} to {now['alignment']:.2f}")
        error = math.sqrt(2 * pgd * (1 - pgd) / examples)
        if now["pgd"] < min(self.drop * pgd, pgd - 3 * error) and len(signs) > 1:
            return f"catastrophic overfitting: {', '.join(signs)}"
        return None


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
