"""Attacks that look for the smallest perturbation, on linear models, where it is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

from regmix.attacks import Attack, CwL2, Ddn, DeepFool, Fab, Fmn, HopSkipJump, Minimal, named_attacks
from regmix.attacks.minimal import to_ball, within
from regmix.threats import L1, L2, Linf, Threat
from regmix.types import UserError

DUAL = {Linf: 1, L2: 2, L1: np.inf}


def linear_case(classes: int, threat: Threat) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model, images far from the borders of [0, 1], their classes, and their distances to the boundary."""
    torch.manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, classes)).double().requires_grad_(False)
    x = torch.rand(12, 3, 5, 5, dtype=torch.float64) * 0.2 + 0.4
    z = model(x).numpy()
    y, weight = z.argmax(1), model[1].weight.numpy()
    distance = [
        min((z[i, y[i]] - z[i, t]) / np.linalg.norm(weight[t] - weight[y[i]], DUAL[type(threat)])
            for t in range(classes) if t != y[i])
        for i in range(len(x))
    ]  # fmt: skip
    return model, x, torch.from_numpy(y), torch.tensor(distance)


ATTACKS = {
    "fmn, linf": (Fmn(), Linf(), 5, 1.02),
    "fmn, l2": (Fmn(), L2(), 5, 1.02),
    "fmn, l1": (Fmn(), L1(), 5, 1.02),
    "ddn, two classes": (Ddn(), L2(), 2, 1.02),
    "deepfool, linf": (DeepFool(), Linf(), 5, 1.02),
    "deepfool, l2": (DeepFool(), L2(), 5, 1.02),
    "fab-t, linf": (Fab(4, 20), Linf(), 5, 1.02),
    "fab-t, l2": (Fab(4, 20), L2(), 5, 1.02),
    "fab-t, l1": (Fab(4, 20), L1(), 5, 1.02),
    "cw-l2": (CwL2(steps=200, searches=8), L2(), 5, 1.02),
}


@pytest.mark.parametrize(
    ("attack", "threat", "classes", "most"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name == "cw-l2" else [])
        for name, case in ATTACKS.items()
    ],
)
def test_it_is_as_short_as_the_distance_to_the_boundary_and_no_shorter(
    attack: Minimal, threat: Threat, classes: int, most: float
) -> None:
    model, x, y, distance = linear_case(classes, threat)
    delta = attack.shortest(model, x, y, threat)
    assert (model(x + delta).argmax(1) != y).all()
    assert ((x + delta) >= 0).all()
    assert ((x + delta) <= 1).all()
    ratio = threat.norm(delta) / distance
    assert ratio.min() >= 1 - 1e-9
    assert ratio.max() <= most + 1e-6
    # At a radius the same perturbations are kept or dropped.
    radius = type(threat)(float(distance.median() * (most + 1e-6)))
    kept = (attack(model, x, y, radius) != 0).flatten(1).any(1)
    assert kept[distance <= distance.median()].all()
    assert not kept[distance > radius.eps].any()


@pytest.mark.parametrize("attack", [Fmn(steps=60), Ddn(steps=60), DeepFool(), Fab(4, 20), CwL2(60, 4)])
def test_what_is_found_misclassifies_where_logits_are_coarse(attack: Minimal) -> None:
    """Logits of bfloat16, or of a quantised network, are often equal; an evaluation goes by argmax."""
    model, x, y, _ = linear_case(5, L2())
    y = torch.sort(y).values * 0  # of equal logits argmax takes the first, which is the label
    x = x[(model(x).argmax(1) == 0)]

    def coarse(images: Tensor) -> Tensor:
        exact = model(images)
        return exact + ((exact * 16).round() / 16 - exact).detach()

    x = x[(coarse(x).argmax(1) == 0)]
    assert len(x) >= 2
    delta = attack.shortest(coarse, x, y[: len(x)], L2())
    there = (delta != 0).flatten(1).any(1)
    assert there.any()
    assert (coarse(x + delta).argmax(1) != 0)[there].all()


@pytest.mark.parametrize("logits", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("images", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "name", ["pgd-5", "apgd-ce", "apgd-t", "pma", "cr", "malt-apgd-t", "fab-t", "square-20", "deepfool", "fmn", "ddn",
             "cw-5", "hop-skip-jump-50", "autoattack-screened"],
)  # fmt: skip
def test_logits_of_another_type_than_the_images(name: str, images: torch.dtype, logits: torch.dtype) -> None:
    model, x, y, _ = linear_case(5, L2())
    attack = named_attacks(name)[name]
    given = x[:3].to(images)
    delta = attack(lambda seen: model(seen.double()).to(logits), given, y[:3], L2(0.3))
    assert delta.dtype == images
    assert (L2().norm(delta) <= 0.3 + 1e-5).all()


@pytest.mark.parametrize("attack", [Fmn(steps=20), Ddn(steps=20), DeepFool(), Fab(2, 5), CwL2(5, 2), HopSkipJump(200)])
def test_a_row_that_is_misclassified_already_stays_and_one_that_cannot_be_is_0(attack: Minimal) -> None:
    """The model answers class 0 for everything, so the label 1 is wrong and no perturbation changes that of 0."""

    def model(images: Tensor) -> Tensor:
        return torch.stack([images.sum((1, 2, 3)) * 0 + 1, images.sum((1, 2, 3)) * 0], 1)

    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    delta = attack.shortest(model, x, torch.tensor([0, 1]), L2())
    assert delta.isfinite().all()
    assert delta[0].abs().max() == 0
    assert L2().norm(delta)[1] < 1e-3


@pytest.mark.parametrize("attack", [Fmn(steps=30), Ddn(steps=30), DeepFool(), Fab(4, 10)])
def test_a_row_fares_as_it_would_alone(attack: Minimal) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5)).double().requires_grad_(False)
    x = torch.rand(6, 3, 4, 4, dtype=torch.float64)
    y = net(x).argmax(1)
    together = attack.shortest(net, x, y, L2())
    for row in range(len(x)):
        alone = attack.shortest(net, x[row : row + 1], y[row : row + 1], L2())
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_projection_onto_an_l1_ball_is_the_nearest_point(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(2, 1, 1, 6, generator=generator, dtype=torch.float64)
    radius = 4 * torch.rand(2, generator=generator, dtype=torch.float64)
    found = to_ball(delta, radius, L1())
    for row in range(2):
        flat, most = delta[row].flatten().numpy(), radius[row].item()
        sides = np.concatenate([np.eye(6), -np.eye(6)])  # d = p - q with p, q >= 0 and sum(p + q) <= radius
        solved = minimize(
            lambda v, flat=flat, sides=sides: ((v @ sides - flat) ** 2).sum(), np.zeros(12), bounds=[(0, None)] * 12,
            jac=lambda v, flat=flat, sides=sides: 2 * sides @ (v @ sides - flat),
            constraints={"type": "ineq", "fun": lambda v, most=most: most - v.sum(), "jac": lambda v: -np.ones(12)},
            method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert found[row].abs().sum().item() <= most * (1 + 1e-9) + 1e-12
        assert ((found[row].flatten().numpy() - flat) ** 2).sum() <= solved.fun * (1 + 1e-6) + 1e-9


def test_only_what_is_within_eps_is_kept() -> None:
    delta = torch.tensor([0.1, 0.2, 0.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    x = torch.full((3, 1, 2, 2), 0.5)
    assert within(delta, x, Linf(0.15)).amax((1, 2, 3)).tolist() == pytest.approx([0.1, 0.0, 0.0])


@pytest.mark.parametrize(("attack", "threat"), [(Ddn(), Linf()), (Ddn(), L1()), (DeepFool(), L1()), (CwL2(), Linf())])
def test_a_norm_that_it_is_not_made_for_is_refused(attack: Minimal, threat: Threat) -> None:
    with pytest.raises(UserError, match=r"use|give"):
        attack.shortest(nn.Flatten(), torch.rand(1, 1, 2, 2), torch.tensor([0]), threat)


def test_attacks_that_look_for_the_smallest_perturbation_are_known_by_their_method() -> None:
    minimal: list[Attack] = [Fmn(), Ddn(), DeepFool(), Fab(), CwL2(), HopSkipJump()]
    assert all(isinstance(attack, Minimal) for attack in minimal)
