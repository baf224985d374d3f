"""What a run continues with after catastrophic overfitting."""

from regmix.methods import Mutual, NFgsm, PgdAt, RegMix, Standard
from regmix.methods.remedies import remedy


def test_the_remedies_keep_the_weights_of_the_mutual_terms() -> None:
    assert remedy(Standard(), 1) == NFgsm()
    assert remedy(Standard(), 2) == PgdAt()
    assert remedy(PgdAt(mutual=Mutual(alpha=3)), 1) == NFgsm(mutual=Mutual(alpha=3))
    weights = Mutual(alpha=50, beta=7, gamma=20, reduction="example")
    assert remedy(RegMix(beta=7, reduction="example", gamma_stop="clean"), 1) == NFgsm(mutual=weights)
    assert remedy(RegMix(beta=7, reduction="example"), 2) == PgdAt(mutual=weights)
