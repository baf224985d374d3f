"""What a training tells before its first step."""

from dataclasses import replace
from typing import Any, Literal, get_args

import pytest
import torch

from regmix.config import Guard, NoAveraging, OneCycle, Piecewise, Swa
from regmix.data import ImageSet
from regmix.data.balance import Balance
from regmix.methods import FgsmAt, Mutual, PgdAt, RegMix, Standard
from regmix.models import SmallCnn, build
from regmix.recipes import recipe
from regmix.runtime import devices
from regmix.threats import L2, Linf
from regmix.training.found import found, idle, ignored_weights, unlearnable
from regmix.training.prepare import Prepared


def lines(counts: list[int], trained_in: Literal["32", "bf16"] = "32", **changes: Any) -> list[str]:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = ImageSet(
        torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labels, tuple(f"c{n}" for n in range(len(counts)))
    )
    model = build(SmallCnn(width=4), len(counts), 1)
    model.linear.requires_grad_(False)
    experiment = replace(recipe("digits-regmix"), **changes)
    validation = images.subset(torch.arange(2))
    return found(experiment, Prepared(devices.start("cpu", "32"), model, images, validation, trained_in))


def test_images_classes_and_network_are_told() -> None:
    sizes, classes, network, against = lines([4, 5, 6], precision="32")
    assert sizes == "images: 15 to train on and 2 to validate on, 1x8x8 (channels, height, width)"
    assert classes == "classes: 3, c0 4, c1 5, c2 6"
    model = build(SmallCnn(width=4), 3, 1)
    every = sum(p.numel() for p in model.parameters())
    last = sum(p.numel() for p in model.linear.parameters())
    assert network == f"network: {every:,} parameters, of which {every - last:,} are trained; cpu, float32"
    assert against == "method: regmix; norm linf, eps 0.15"


@pytest.mark.parametrize(("capable", "told"), [(True, "bfloat16"), (False, "bfloat16 by rounding (this CPU has no ")])
def test_bfloat16_says_where_it_comes_from(capable: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regmix.training.found.computes_in_bfloat16", lambda device: capable)
    network = lines([4, 5], trained_in="bf16")[2]
    assert f"; cpu, {told}" in network
    assert network.endswith("bfloat16") is capable


def test_the_method_and_the_radius_are_told() -> None:
    threat = L2(eps=0.5)
    assert lines([4, 5], threat=Linf(4 / 255), ramp=0.3)[3] == (
        "method: regmix; norm linf, eps 4/255, reached after the first 30% of the training"
    )
    assert lines([4, 5], threat=threat, ramp=0.3, ramp_of="terms", method=FgsmAt())[3] == (
        "method: fgsm_at; norm l2, eps 0.5"
    )
    assert lines([4, 5], threat=threat, method=Standard())[3] == (
        "method: standard, without attacks; validated with norm l2, eps 0.5"
    )


def test_uneven_classes_get_advice_unless_they_are_balanced() -> None:
    assert "consider --balance" in lines([3, 9, 5])[1]
    assert "consider --balance" not in lines([4, 9, 5])[1]
    assert "consider --balance" not in lines([3, 9, 5], balance="loss")[1]


def test_of_many_classes_the_ends_are_told() -> None:
    assert lines([5, 2, *[4] * 15, 6])[1].startswith("classes: 18, from c1 2 to c17 6 images to train on")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"averaging": Swa(start=3)}, "--averaging.start 3"),
        ({"averaging": Swa(start=2)}, None),
        ({"schedule": Piecewise((3, 5))}, "--schedule piecewise"),
        ({"schedule": Piecewise((2, 5))}, None),
        ({"schedule": OneCycle(warm_up=0.3)}, "--schedule one_cycle"),
        ({"schedule": OneCycle(warm_up=0.4)}, None),
        ({"awp": 0.01, "awp_warm_up": 3}, "--awp"),
        ({"awp": 0.01, "awp_warm_up": 2}, None),
        ({"label_rest": "random"}, "--label-rest random"),
        ({"label_rest": "random", "label_mass": 0.8}, None),
        ({"threat": Linf(0.5)}, "--threat.eps 0.5: at 1/2 every image can be turned into the same grey"),
        ({"method": RegMix(weights="auto", alpha=500.0)}, "--method.alpha: no effect"),
        ({"method": PgdAt(mutual=Mutual(weights="auto", beta=3.0))}, "--method.mutual.beta: no effect"),
        ({"method": RegMix(weights="auto")}, None),
        ({"ramp_of": "terms"}, "--ramp-of terms"),
        ({"ramp_of": "terms", "ramp": 0.5}, None),
        ({"best_of": "either"}, "--best-of either"),
        ({"guard": Guard(action="stop"), "method": Standard()}, "--guard.action stop"),
        ({"guard": Guard(action="stop"), "method": PgdAt(steps=2)}, None),
    ],
)
def test_a_setting_without_effect_is_told(changes: dict[str, Any], told: str | None) -> None:
    settings = {"epochs": 3, "averaging": NoAveraging()} | changes
    said = [*idle(replace(recipe("digits-regmix"), **settings))]
    assert len(said) == (told is not None)
    assert told is None or said[0].startswith(told)


def test_classes_without_a_training_image_are_told() -> None:
    def told(*labels: int) -> list[str]:
        return [*unlearnable(ImageSet(torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), torch.tensor(labels),
                                      ("0", "1", "2")))]  # fmt: skip

    assert told(0, 1, 2) == []
    (one,) = told(1, 2)
    assert one.startswith("no training image is left of 0; the network cannot learn it")
    assert "of 0, 2; the network cannot learn them" in told(1)[0]


def test_an_advice_names_a_value_that_there_is() -> None:
    advice = lines([3, 9, 5])[1].partition("consider ")[2]
    assert [words.split()[1] for words in advice.split(" or ")] == [*get_args(Balance)[1:]]


@pytest.mark.parametrize("changed", [{"alpha": 500.0}, {"beta": 1.0, "gamma": 0.5}, {"reduction": "example"}, {}])
def test_weights_that_automatic_ones_replace_are_known(changed: dict[str, Any]) -> None:
    own, part = RegMix(weights="auto", **changed), FgsmAt(mutual=Mutual(weights="auto", **changed))
    assert ignored_weights(own) == [f"method.{name}" for name in changed]
    assert ignored_weights(part) == [f"method.mutual.{name}" for name in changed]
    for method in (RegMix(**changed), FgsmAt(mutual=Mutual(**changed)), Standard()):
        assert ignored_weights(method) == []
