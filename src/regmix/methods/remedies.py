"""What a run continues with after catastrophic overfitting."""

from dataclasses import fields

from regmix.methods.base import Method
from regmix.methods.mutual import Mutual
from regmix.methods.n_fgsm import NFgsm
from regmix.methods.pgd_at import PgdAt

MAX_ROLLBACKS = 2
"""How often a run may be rolled back."""


def remedy(method: Method, level: int) -> Method:
    """The method after the level-th rollback, with the weights of the mutual terms that `method` has, if any.

    First N-FGSM (arXiv 2202.01181), which costs no more than FGSM; then PGD-AT with ten steps.
    """
    given = Mutual.of(method) or Mutual()
    mutual = Mutual(**{field.name: getattr(given, field.name) for field in fields(Mutual)})
    return NFgsm(mutual=mutual) if level == 1 else PgdAt(mutual=mutual)
