"""What every attack promises. A new attack joins by one row in ATTACKS."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from contracts.devices import DEVICE
from regmix.attacks import (
    Adaptive,
    Apgd,
    Attack,
    Cw,
    CwL2,
    Ddn,
    DeepFool,
    Ensemble,
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
    Transfer,
)
from regmix.threats import L1, L2, Linf
from regmix.training.randomness import random_state


class Row(NamedTuple):
    attack: Attack
    linf: float | None = None
    """How far from the optimum on a linear model it may end, as a share of it; None where it does not seek it."""
    l2: float | None = None
    """The same for the Euclidean ball, on which a random start's sideways part only fades."""
    reach: float | None = None
    """It breaks an example of a linear model whose distance to the boundary is eps / reach."""
    l1: float | None = 0.04
    """The same for the sum of the changes, where a step changes a twentieth of the elements."""
    reach_l1: float = 1.1
    """`reach` under L1."""
    norms: tuple[str, ...] = ("linf", "l2", "l1")


ATTACKS = {
    "fgsm": Row(Fgsm(), 0, 0, 1.001),
    "pgd-1": Row(Pgd(1)),
    "pgd-2": Row(Pgd(2)),
    "pgd-10": Row(Pgd(10), 0, 0.05, 1.05),
    "pgd-50": Row(Pgd(50), 0, 1e-4, 1.001),
    "pgd-10, long steps": Row(Pgd(10, step_size=1.0, seed=3), 0, 1e-4, 1.001),
    "pgd-5x3": Row(Pgd(5, step_size=0.5, restarts=3), 0, 0.1, 1.1),
    "cw-30": Row(Cw(30), 0, 1e-3, 1.001),
    "mi-fgsm-10": Row(MiFgsm(10), 1e-6, 1e-6, 1.001),
    "adaptive": Row(Adaptive(20)),
    "apgd-ce": Row(Apgd("ce"), reach=1.01, reach_l1=1.05),
    "apgd-dlr": Row(Apgd("dlr", steps=50, restarts=2), reach=1.01, reach_l1=1.05),
    "apgd-t": Row(Apgd(targets=9, steps=50), reach=1.01, reach_l1=1.05),
    "pma": Row(Apgd("pm", steps=50), reach=1.01, reach_l1=1.05),
    "malt-apgd-t": Row(Malt(steps=50), reach=1.01, reach_l1=1.05),
    "cr": Row(Relaxation(cycles=3), reach=1.02),
    "fab-t": Row(Fab(steps=50), reach=1.05, reach_l1=1.01),
    "square, linf": Row(Square(600), reach=1.15, norms=("linf",)),
    "square, l2": Row(Square(400), reach=2.5, norms=("l2",)),
    "square, l1": Row(Square(400), norms=("l1",)),
    "cw-l2": Row(CwL2(steps=150, searches=6, lr=0.02), reach=1.05, norms=("l2",)),
    "fmn": Row(Fmn(steps=60), reach=1.02, reach_l1=1.05),
    "ddn": Row(Ddn(steps=120), reach=1.02, norms=("l2",)),
    "deepfool": Row(DeepFool(), reach=1.021, norms=("linf", "l2")),
    "hop-skip-jump": Row(HopSkipJump(8000), reach=1.2, norms=("linf", "l2")),
    "transfer": Row(Transfer(lambda z: z.flatten(1)[:, :5] - z.flatten(1)[:, 5:10], Pgd(3))),
    "autoattack, short": Row(
        Ensemble((("apgd-ce", Apgd("ce", steps=20)), ("fab-t", Fab(steps=20)), ("square", Square(50)))), reach=1.05
    ),
    "shortened": Row(
        Shortened(
            Apgd("pm", steps=50), (Fab(targets=1, steps=5), Square(20)), ((0.4, Apgd(targets=4)), (0.2, Square(50)))
        ),
        reach=1.05,
    ),
}
THREATS = {"linf": Linf(eps=0.1), "l2": L2(eps=0.5), "l1": L1(eps=1.5)}

CASES = {f"{name}-{norm}": (row, THREATS[norm]) for name, row in ATTACKS.items() for norm in row.norms}
LONG = ("square", "fab-t", "cr-", "cw-l2", "hop-skip-jump", "autoattack, short", "shortened")
"""Attacks of many passes: in the fast set only that they stay in the threat set and break what lies near."""
every_case = pytest.mark.parametrize(("row", "threat"), CASES.values(), ids=CASES)
short_cases = pytest.mark.parametrize(
    ("row", "threat"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name.startswith(LONG) else [])
        for name, case in CASES.items()
    ],
)
LOOSE = {"fab-t", "fmn", "ddn", "deepfool", "cw-l2", "hop-skip-jump", "transfer", "autoattack, short"}
"""Attacks that may leave a row as it is: where the nearest example is too far away, or what they do is in vain."""


pytestmark = pytest.mark.device


class Net(nn.Module):
    """A network with everything that an attack could disturb: BatchNorm, dropout, frozen parts, mixed modes."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.frozen_norm = nn.BatchNorm2d(4).eval()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 25, 5)
        self.head.bias.requires_grad_(False)
        self.to(DEVICE)
        self.fail_at, self.forwards = fail_at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        if self.forwards == self.fail_at:
            raise RuntimeError("the model fails")
        h = torch.relu(self.frozen_norm(self.norm(self.convolution(x))))
        return self.head(self.dropout(h).flatten(1))


def images(count: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    """A quarter of the pixels lie on the border of [0, 1], so that the range matters."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(count, 3, 5, 5, generator=generator, dtype=dtype) * 1.4 - 0.2).clamp(0, 1).to(DEVICE)


LABELS = torch.tensor([0, 1, 4, 2], device=DEVICE)


@cache
def perturbation(attack: Attack, threat: Linf | L2 | L1) -> Tensor:
    """What the attack makes of the images, for the tests that compare it with what it makes under other conditions."""
    torch.manual_seed(0)
    return attack(Net().eval(), images(), LABELS, threat)


def assert_in_set(delta: Tensor, x: Tensor, threat: Linf | L2 | L1) -> None:
    assert delta.shape == x.shape
    assert delta.dtype == x.dtype
    assert not delta.requires_grad
    flat = delta.flatten(1).double()
    lengths = {Linf: flat.abs().amax(1), L2: flat.square().sum(1).sqrt(), L1: flat.abs().sum(1)}[type(threat)]
    assert lengths.max() <= threat.eps * (1 + 1e-6)
    assert (x + delta).min() >= -1e-7
    assert (x + delta).max() <= 1 + 1e-7


@every_case
def test_it_stays_in_the_threat_set_and_moves(row: Row, threat: Linf | L2 | L1) -> None:
    x, delta = images(), perturbation(row.attack, threat)
    assert_in_set(delta, x, threat)
    if row not in [ATTACKS[name] for name in LOOSE]:
        assert (delta != 0).flatten(1).any(1).all()


@short_cases
def test_it_works_in_float64(row: Row, threat: Linf | L2 | L1) -> None:
    x = images(dtype=torch.float64)
    assert_in_set(row.attack(Net().double(), x, LABELS, threat), x, threat)


@short_cases
def test_it_works_under_bf16_autocast(row: Row, threat: Linf | L2 | L1) -> None:
    x = images()
    with torch.autocast(DEVICE.type, torch.bfloat16):
        delta = row.attack(Net(), x, LABELS, threat)
    assert_in_set(delta, x, threat)
    assert delta.isfinite().all()


def linear_model(dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, Tensor]:
    """Two classes whose logits differ by w . x + b, and w."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, 2)).to(DEVICE, dtype)
    return model, model[1].weight[1].detach() - model[1].weight[0].detach()


def loss_of_margin(model: nn.Module, x: Tensor, delta: Tensor, y: Tensor) -> Tensor:
    """By how much the attack lowers the true class's lead."""
    with torch.no_grad():
        before, after = model(x), model(x + delta)
    sign = 2 * y - 1
    return sign * ((before[:, 1] - before[:, 0]) - (after[:, 1] - after[:, 0]))


def best_loss(w: Tensor, x: Tensor, y: Tensor, threat: Linf | L2 | L1) -> Tensor:
    """The most that the true class's lead can lose: eps ||w||_1 under Linf and eps ||w||_2 under L2, far from the
    range's border; under L1 the elements with the largest |w_i| go to the border, one after the other."""
    if isinstance(threat, Linf):
        return threat.eps * w.norm(p=1).expand(len(x))
    if isinstance(threat, L2):
        return threat.eps * w.norm(p=2).expand(len(x))
    upwards = (w > 0) != (y[:, None] == 1)
    order = w.abs().argsort(descending=True)
    room = torch.where(upwards, 1 - x.flatten(1), x.flatten(1))[:, order]
    used = (threat.eps - (room.cumsum(1) - room)).clamp_min(0).minimum(room)
    return (used * w.abs()[order]).sum(1)


@every_case
def test_it_is_near_the_optimum_of_a_linear_model(row: Row, threat: Linf | L2 | L1) -> None:
    if row.linf is None:
        return
    model, w = linear_model()
    x, y = images(dtype=torch.float64) * 0.2 + 0.4, torch.tensor([0, 1, 1, 0], device=DEVICE)
    optimum = best_loss(w, x, y, threat)
    lost = loss_of_margin(model, x, row.attack(model, x, y, threat), y)
    assert (lost <= optimum * (1 + 1e-7)).all()
    shortfall = {Linf: row.linf, L2: row.l2, L1: row.l1}[type(threat)]
    if shortfall is not None:
        assert (lost >= optimum * (1 - shortfall - 1e-7)).all()


@pytest.mark.parametrize("row", [row for row in ATTACKS.values() if row.linf is not None])
def test_it_is_near_the_optimum_of_a_linear_model_at_the_borders_of_the_range(row: Row) -> None:
    """Under Linf every pixel contributes |w_i| min(eps, room), where room is its distance to 0 or 1."""
    model, w = linear_model()
    x, y = images(dtype=torch.float64), torch.tensor([0, 1, 1, 0], device=DEVICE)
    upwards = (w > 0) != (y[:, None] == 1)
    room = torch.where(upwards, 1 - x.flatten(1), x.flatten(1)).clamp_max(THREATS["linf"].eps)
    optimum = (w.abs() * room).sum(1)
    lost = loss_of_margin(model, x, row.attack(model, x, y, THREATS["linf"]), y)
    assert (lost <= optimum * (1 + 1e-7)).all()
    assert (lost >= optimum * (1 - row.linf - 1e-7)).all()


def distance_l1(w: Tensor, x: Tensor, y: Tensor, lead: Tensor) -> float:
    """By bisection: the best loss grows with eps."""
    low, high = 0.0, 75.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if best_loss(w, x, y, L1(middle)) < lead else (low, middle)
    return high


@pytest.mark.parametrize(
    ("row", "threat"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name.startswith(LONG) else [])
        for name, case in CASES.items()
        if case[0].reach is not None
    ],
)
def test_it_breaks_what_lies_near_the_boundary_of_a_linear_model_and_nothing_beyond_eps(
    row: Row, threat: Linf | L2 | L1
) -> None:
    model, w = linear_model()
    model[1].bias.data += torch.tensor([0.0, 0.02], device=DEVICE)
    x = images(dtype=torch.float64) * 0.2 + 0.4
    with torch.no_grad():
        z = model(x)
    y, lead = z.argmax(1), (z[:, 1] - z[:, 0]).abs()
    distance = lead / w.norm(p=1 if isinstance(threat, Linf) else 2)
    if isinstance(threat, L1):
        distance = torch.tensor(
            [distance_l1(w, x[i : i + 1], y[i : i + 1], lead[i]) for i in range(len(x))], device=DEVICE
        )
    reach = row.reach_l1 if isinstance(threat, L1) else row.reach
    for row_number in range(len(x)):
        one, label = x[row_number : row_number + 1], y[row_number : row_number + 1]
        for eps, broken in ((distance[row_number] * reach, True), (distance[row_number] * 0.999, False)):
            delta = row.attack(model, one, label, replace(threat, eps=float(eps)))
            assert_in_set(delta, one, replace(threat, eps=float(eps)))
            with torch.no_grad():
                assert bool(model(one + delta).argmax(1) != label) == broken


@pytest.mark.parametrize(
    ("row", "threat", "fail_at"),
    [
        pytest.param(*case, fail_at, id=f"{fail_at}-{name}", marks=[pytest.mark.slow] if long else [])
        for name, case in CASES.items()
        for fail_at in (None, 1, 2)
        for long in [fail_at is None and name.startswith(LONG)]
    ],
)
def test_it_leaves_the_model_as_it_was_even_if_the_model_fails(
    row: Row, threat: Linf | L2 | L1, fail_at: int | None
) -> None:
    model, x = Net(fail_at), images()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with suppress(RuntimeError) if fail_at else nullcontext():
        row.attack(model, x, LABELS, threat)
    assert model.forwards > 0 or row is ATTACKS["transfer"]
    assert [module.training for module in model.modules()] == modes
    assert modes.count(True) == len(modes) - 1
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(x, images())


@short_cases
def test_it_attacks_the_model_that_is_evaluated(row: Row, threat: Linf | L2 | L1) -> None:
    """In evaluation mode, whatever mode the model is in: no dropout, no batch statistics."""
    in_training = Net().train()
    assert torch.equal(row.attack(in_training, images(), LABELS, threat), perturbation(row.attack, threat))


@short_cases
def test_the_other_images_of_the_batch_do_not_matter(row: Row, threat: Linf | L2 | L1) -> None:
    """Neither which they are nor their order: in AutoAttack's stages they depend on what earlier stages broke."""
    if isinstance(row.attack, HopSkipJump):
        pytest.skip("it begins at misclassified images of the batch, as in its paper")
    model, small = Net().double(), replace(threat, eps=threat.eps / 4)
    x = images(10, torch.float64)
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
    chosen = torch.tensor([7, 0, 8, 3], device=DEVICE)
    every, few = row.attack(model, x, y, small), row.attack(model, x[chosen], y[chosen], small)
    with torch.no_grad():
        broken = model(x + every).argmax(1) != y
        assert torch.equal(model(x[chosen] + few).argmax(1) != y[chosen], broken[chosen])
    if not isinstance(row.attack, (Shortened, Ensemble)):
        torch.testing.assert_close(few, every[chosen], rtol=0, atol=1e-6)


@short_cases
def test_the_same_seed_gives_the_same_perturbation(row: Row, threat: Linf | L2 | L1) -> None:
    first, model = perturbation(row.attack, threat), Net()
    torch.manual_seed(1)
    state = random_state(DEVICE)
    assert torch.equal(first, row.attack(model, images(), LABELS, threat))
    # Nor does it use up random numbers of anybody else's.
    now = random_state(DEVICE)
    assert all(torch.equal(state[name], now[name]) for name in state)


@short_cases
def test_it_works_where_gradients_are_switched_off(row: Row, threat: Linf | L2 | L1) -> None:
    expected = perturbation(row.attack, threat)
    with torch.no_grad():
        assert torch.equal(row.attack(Net(), images(), LABELS, threat), expected)


@short_cases
def test_it_takes_any_function_for_a_model(row: Row, threat: Linf | L2 | L1) -> None:
    model, x = linear_model(torch.float32)[0], images()
    delta = row.attack(lambda z: model(z), x, LABELS % 2, threat)
    assert torch.equal(delta, row.attack(model, x, LABELS % 2, threat))
