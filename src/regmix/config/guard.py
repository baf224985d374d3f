"""The guard against catastrophic overfitting: when it raises an alarm, and what the run does then."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from regmix.types import require

Action = Literal["continue", "stop", "rollback"]


@dataclass(frozen=True)
class Guard:
    """Raises an alarm for catastrophic overfitting: PGD breaks the model, although FGSM does not.

    PGD and FGSM are accuracies on the validation images, and A is the gradient alignment (see `alignment`) on 128 of
    them, drawn evenly from the classes; the best values are those of the earlier validations:

        alarm <=> PGD < drop * best PGD  and  (PGD < drop * FGSM  or  A < drop * best A)

    and PGD has fallen by more than three standard errors, sqrt(2 p (1 - p) / n) with p the best PGD accuracy and n the
    number of validation images, so that chance raises no alarm while the model is hardly trained. A fall of PGD alone
    may be ordinary overfitting; both signs together are what arXiv 2001.03994 and 2007.02617 describe.
    """

    action: Action = "continue"
    """Reaction to an alarm. continue: only report it. stop: end the run. rollback: return to the last validation with
    no alarm, and continue with N-FGSM, or with PGD-AT after a second alarm."""
    drop: float = 0.5
    """Share of the best PGD accuracy below which the accuracy counts as collapsed, in (0, 1)."""

    def __post_init__(self) -> None:
        require(0 < self.drop < 1, f"guard drop is {self.drop}; it must lie in (0, 1)")

    def alarm(self, before: Sequence[Mapping[str, float]], now: Mapping[str, float], examples: int) -> str | None:
        """The reason for an alarm in one line; None without an alarm.

        Args:
            before: the values of the earlier validations: `pgd`, `fgsm`, `alignment`.
            now: those of the present validation.
            examples: the number of validation images.
        """
        if not before:
            return None
        best_pgd, best_alignment = (max(values[name] for values in before) for name in ("pgd", "alignment"))
        signs = [f"PGD accuracy fell from {best_pgd:.1%} to {now['pgd']:.1%}"]
        if now["pgd"] < self.drop * now["fgsm"]:
            signs.append(f"FGSM accuracy is {now['fgsm']:.1%}")
        if now["alignment"] < self.drop * best_alignment:
            signs.append(f"gradient alignment fell from {best_alignment:.2f} to {now['alignment']:.2f}")
        error = math.sqrt(2 * best_pgd * (1 - best_pgd) / examples)
        if now["pgd"] < min(self.drop * best_pgd, best_pgd - 3 * error) and len(signs) > 1:
            return f"catastrophic overfitting: {', '.join(signs)}"
        return None
