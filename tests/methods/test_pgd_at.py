"""PGD adversarial training against its formula."""

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import SHAPE, Given, Plain
from regmix.methods import PgdAt
from regmix.threats import L2, Linf
from regmix.types import Batch

LABELS = torch.tensor([0, 2, 3, 1, 2])
RADIUS = {"linf": 0.1, "l2": 0.4}


def a_start(kind: str, norm: str, x: Tensor) -> Tensor:
    threat = {"linf": Linf, "l2": L2}[norm](eps=RADIUS[norm])
    generator = torch.Generator().manual_seed(7)
    return torch.zeros(5, *SHAPE).double() if kind == "zero" else getattr(threat, kind)(x, generator)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["zero", "uniform", "corner"])
@pytest.mark.parametrize(("steps", "step_size"), [(2, 0.5), (2, 1.0), (10, 0.25)])
@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_it_is_cross_entropy_at_the_end_of_the_attack(
    mass: float, steps: int, step_size: float, kind: str, norm: str
) -> None:
    net, eps = reference.tiny_net(), RADIUS[norm]
    plain, x, target = Plain(net), reference.images(5), reference.smoothed(LABELS, mass)
    start = a_start(kind, norm, x)
    # The attack climbs the cross-entropy of the hard label whatever the loss is.
    hard = reference.smoothed(LABELS, 1.0)
    delta, _ = reference.climb(
        plain,
        x,
        start,
        lambda z: reference.cross_entropy(z, hard),
        steps=steps,
        step=step_size * eps,
        eps=eps,
        norm=norm,
    )
    expected = reference.cross_entropy(plain(x + delta), target).sum() / 5

    threat = Given({"linf": Linf, "l2": L2}[norm](eps=eps), **({} if kind == "zero" else {kind: start}))
    batch = Batch(x, LABELS if mass == 1 else target, torch.arange(5))
    losses = PgdAt(steps=steps, step_size=step_size, start=kind)(net, batch, threat, None)
    losses.total.backward()
    assert [*losses.terms] == ["classify"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10
    # Every step of the attack and the loss itself each updated BatchNorm once, in this order.
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert reference.relative_error(net[2].running_var, plain.variance) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards == steps + 1


@pytest.mark.parametrize(
    ("steps", "step_size", "start"),
    [(10, 0.25, "uniform"), (4, 0.25, "uniform"), (3, 1 / 3, "zero"), (2, 0.5, "zero"), (1, 1.0, "zero")],
)
def test_the_defaults_follow_the_number_of_steps(steps: int, step_size: float, start: str) -> None:
    """PGD-AT's steps of eps / 4 from a random start, PGD-2-AT's steps of eps / 2 from zero."""

    def loss(method: PgdAt) -> Tensor:
        torch.manual_seed(0)
        batch = Batch(reference.images(5), LABELS, torch.arange(5))
        return method(reference.tiny_net(), batch, Linf(eps=0.1), None).total

    assert torch.equal(loss(PgdAt(steps=steps)), loss(PgdAt(steps=steps, step_size=step_size, start=start)))
    assert PgdAt().steps == 10
