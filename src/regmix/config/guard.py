"""What counts as catastrophic overfitting, and what follows from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from regmix.types import require

Action = Literal["continue", "stop", "rollback"]


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
    """What to do at an alarm, besides a line in the log and in the report. continue: nothing. stop: end the run.
    rollback: go back to the last healthy validation and continue with N-FGSM, after a second collapse with PGD-AT."""
    drop: float = 0.5
    """Threshold in (0, 1). PGD accuracy has collapsed when it is below this share of its best value."""

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
