"""What a run continues with after catastrophic overfitting."""

from collections.abc import Sequence
from dataclasses import fields

from regmix.methods.base import Method
from regmix.methods.mutual import Mutual
from regmix.methods.n_fgsm import NFgsm
from regmix.methods.pgd_at import PgdAt

REMEDIES: tuple[type[NFgsm] | type[PgdAt], ...] = (NFgsm, PgdAt)
"""What a run continues with after the first rollback, and after the second."""
MAX_ROLLBACKS = len(REMEDIES)
"""How often a run may be rolled back."""


def remedy(method: Method, level: int) -> Method:
    """The method after the level-th rollback, with the weights of the mutual terms that `method` has, if any.

    First N-FGSM (arXiv 2202.01181), which costs no more than FGSM; then PGD-AT with ten steps.
    """
    given = Mutual.of(method) or Mutual()
    mutual = Mutual(**{field.name: getattr(given, field.name) for field in fields(Mutual)})
    return REMEDIES[level - 1](mutual=mutual)


def continued(actions: Sequence[str], back: Sequence[int]) -> list[tuple[int, str] | None]:
    """What followed each alarm of a guard with these actions: after a rollback, the epoch and the title of the remedy.

    Args:
        back: as in `trained_with`.
    """
    after = zip(back, (kind.title for kind in REMEDIES), strict=False)
    return [next(after) if action == "rollback" else None for action in actions]


def trained_with(title: str, back: Sequence[int], epochs: int) -> list[tuple[str, int, int]]:
    """The titles of the methods of a training, each with its first and last epoch; undone epochs do not count.

    Args:
        title: of the method in the settings.
        back: for each rollback, the epoch after which the run continued.
        epochs: how many are done.
    """
    titles = [title, *(kind.title for kind in REMEDIES)]
    spans = zip(titles, [0, *back], [*back, epochs], strict=False)
    return [(name, before + 1, last) for name, before, last in spans if last > before] or [(title, 1, epochs)]
