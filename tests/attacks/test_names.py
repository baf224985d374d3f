"""The names that attacks go by."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from regmix.attacks import (
    AUTOATTACK,
    AUTOATTACK_SCREENED,
    NAMES,
    STRONGEST,
    Adaptive,
    Apgd,
    Cw,
    CwL2,
    Ddn,
    DeepFool,
    Fab,
    Fgsm,
    Fmn,
    HopSkipJump,
    Malt,
    MiFgsm,
    Pgd,
    Relaxation,
    Shortened,
    Square,
    parse_attack,
    passes,
)
from regmix.threats import L2, Linf, Threat
from regmix.types import UserError


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("fgsm", Fgsm()),
        ("pgd-1", Pgd(1)),
        ("pgd-50", Pgd(50)),
        ("pgd-1000", Pgd(1000)),
        ("pgd-20x5", Pgd(20, restarts=5)),
        ("cw-30", Cw(30)),
        ("cw-l2", CwL2(steps=1000, searches=9)),
        ("mi-fgsm-20", MiFgsm(20)),
        ("apgd-ce", Apgd("ce", targets=0, steps=100, restarts=1)),
        ("apgd-dlr", Apgd("dlr", targets=0, steps=100, restarts=1)),
        ("apgd-t", Apgd(targets=9, steps=100, restarts=1)),
        ("pma", Apgd("pm", steps=100, restarts=1)),
        ("malt-apgd-t", Malt(targets=9, steps=100, candidates=100)),
        ("cr", Relaxation(targets=3, cycles=5, steps=30)),
        ("fab-t", Fab(targets=9, steps=100)),
        ("square", Square(queries=5000, share=0.8)),
        ("fmn", Fmn(steps=200)),
        ("ddn", Ddn(steps=200)),
        ("deepfool", DeepFool()),
        ("hop-skip-jump", HopSkipJump()),
        ("adaptive", Adaptive()),
        ("autoattack", AUTOATTACK),
        ("autoattack-screened", AUTOATTACK_SCREENED),
        ("strongest", STRONGEST),
    ],
)
def test_a_conventional_name_is_understood(name: str, attack: object) -> None:
    assert parse_attack(name) == attack


def test_autoattack_is_the_standard_ensemble() -> None:
    assert [name for name, _ in AUTOATTACK.stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert all(parse_attack(name) == attack for name, attack in AUTOATTACK.stages)


def test_screening_keeps_autoattack_for_near_examples_and_says_that_it_is_not_autoattack() -> None:
    for stages, auto in ((AUTOATTACK_SCREENED.stages, AUTOATTACK.stages), (AUTOATTACK_SCREENED.l1, AUTOATTACK.l1)):
        ((name, attack),) = stages
        assert isinstance(attack, Shortened)
        assert attack.first == parse_attack("pma")
        assert [dear for _, dear in attack.dear] == [Malt(targets=1, candidates=9), *(part for _, part in auto)]
        assert name == ", ".join(["pma", "malt-apgd-t", *(part for part, _ in auto)])
    assert AUTOATTACK_SCREENED.note.startswith("This is not AutoAttack")
    assert passes(AUTOATTACK_SCREENED) < passes(AUTOATTACK) / 4


def test_the_strongest_ensemble_has_more_than_autoattack_and_says_that_it_is_not_autoattack() -> None:
    parts, auto = dict(STRONGEST.stages), dict(AUTOATTACK.stages)
    assert parts["fab-t"] == auto["fab-t"]
    assert parts["square"].brief == (auto["square"],)
    assert {limit for limit, _ in parts["square"].dear} == {0.0}, "only rows that Square brought nearer than APGD"
    assert [more for _, more in parts["square"].dear] == [replace(auto["square"], seed=seed) for seed in range(1, 10)]
    assert parts["apgd-ce"] == replace(auto["apgd-ce"], restarts=5)
    assert parts["malt-apgd-t"] == Malt(**vars(auto["apgd-t"]))
    assert parts["cr"] == Relaxation()
    assert STRONGEST.note.startswith("This is not AutoAttack")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threat", "levels"),
    [(Linf(0.06), None), (L2(0.4), None), (Linf(0.06), 6)],
    ids=["linf", "l2", "linf, masked"],
)
def test_the_strongest_ensemble_breaks_all_that_autoattack_breaks(threat: Threat, levels: int | None) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(75, 24), nn.Tanh(), nn.Linear(24, 5)).double()

    def model(images: Tensor) -> Tensor:
        return net(images if levels is None else (images * levels).round() / levels)

    x = torch.rand(40, 3, 5, 5, dtype=torch.double)
    with torch.no_grad():
        y = model(x).argmax(1)
        broken = [model(x + ensemble(model, x, y, threat)).argmax(1) != y for ensemble in (AUTOATTACK, STRONGEST)]
    assert 0 < broken[0].sum() < 40
    assert broken[1][broken[0]].all()
    if levels is None:
        assert torch.equal(*broken)


def test_every_listed_name_is_understood() -> None:
    for name in NAMES:
        parse_attack(name.replace("NxR", "7x2").replace("-N", "-7"))


@pytest.mark.parametrize(
    "name",
    ["", "pgd", "pgd-0", "pgd--1", "pgd-1.5", "PGD-10", "fgsm-10", "pgd-999999", " fgsm", "pgd-5x0"],
)
def test_another_name_is_refused_in_one_line_that_helps(name: str) -> None:
    with pytest.raises(UserError, match=r"pgd|fgsm") as refused:
        parse_attack(name)
    assert repr(name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean fgsm"):
        parse_attack("fsgm")
    with pytest.raises(UserError, match="did you mean autoattack"):
        parse_attack("auto-attack")
    with pytest.raises(UserError, match=r"did you mean pgd-20\?"):
        parse_attack("pdg-20")
    with pytest.raises(UserError, match=r"did you mean mi-fgsm-7\?"):
        parse_attack("mifgsm-7")
