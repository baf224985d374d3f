"""The names that attacks go by."""

import pytest

from regmix.attacks import Fgsm, Pgd, parse_attack
from regmix.types import UserError


@pytest.mark.parametrize(
    ("name", "attack"),
    [("fgsm", Fgsm()), ("pgd-1", Pgd(1)), ("pgd-10", Pgd(10)), ("pgd-50", Pgd(50)), ("pgd-1000", Pgd(1000))],
)
def test_a_conventional_name_is_understood(name: str, attack: object) -> None:
    assert parse_attack(name) == attack


@pytest.mark.parametrize(
    "name", ["", "pgd", "pgd-0", "pgd--1", "pgd-1.5", "PGD-10", "autoattack", "fgsm-10", "pgd-999999", " fgsm"]
)
def test_another_name_is_refused_in_one_line_that_helps(name: str) -> None:
    with pytest.raises(UserError, match=r"pgd|fgsm") as refused:
        parse_attack(name)
    assert repr(name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean fgsm"):
        parse_attack("fsgm")
