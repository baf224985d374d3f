"""An attack by name: one value, from which the names of its columns follow."""

from pathlib import Path

import pytest

from regmix.attacks import AUTOATTACK, NamedAttack, Pgd, parse_attacks
from regmix.types import UserError


def test_a_name_is_a_value_that_knows_its_columns() -> None:
    (pgd, auto) = parse_attacks("clean, pgd-50 ,autoattack,pgd-50")
    assert pgd == NamedAttack("pgd-50", Pgd(50))
    assert auto.attack == AUTOATTACK
    assert [auto.column(eps) for eps in (8 / 255, 0.1)] == ["autoattack@8/255", "autoattack@0.1"]
    assert parse_attacks("clean") == ()


def test_a_transfer_attack_is_the_same_by_whichever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["runs/a", "./runs/a/", "runs/b/../a", str(tmp_path / "runs" / "a")]
    (attack,) = parse_attacks(",".join(f"transfer:{path}" for path in paths))
    assert attack == NamedAttack("transfer:a", None, tmp_path / "runs" / "a")
    assert attack.column(8 / 255) == "transfer:a@8/255"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert NamedAttack.parse("transfer:.").name == "transfer:here"


def test_two_runs_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="would both be called transfer:a; rename one"):
        parse_attacks("transfer:runs/a,transfer:other/a")


@pytest.mark.parametrize("name", ["PGD-50", "pgd-050", "Clean", "", "transfer:", "TRANSFER:a", "pgd-50;fgsm"])
def test_another_spelling_is_refused_rather_than_given_a_column_of_its_own(name: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_attacks(f"fgsm,{name}")
    assert repr(name) in str(refused.value)
