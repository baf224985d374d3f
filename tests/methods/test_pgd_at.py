"""PGD adversarial training against its formula."""

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import SHAPE, Given, Plain
from regmix.methods import Mutual, PgdAt
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
@pytest.mark.parametrize("bn", ["train", "eval"])
def test_it_is_cross_entropy_at_the_end_of_the_attack(
    bn: str, mass: float, steps: int, step_size: float, kind: str, norm: str
) -> None:
    net, eps = reference.tiny_net(), RADIUS[norm]
    plain, x, target = Plain(net), reference.images(5), reference.smoothed(LABELS, mass)
    start = a_start(kind, norm, x)
    # The public code clips the uniform start to the image's range, too.
    begin = reference.project(start, x, eps, norm) if kind == "uniform" else start
    assert kind != "uniform" or not torch.equal(begin, start)
    # The attack climbs the cross-entropy of the hard label whatever the loss is.
    hard = reference.smoothed(LABELS, 1.0)
    delta, _ = reference.climb(
        plain,
        x,
        begin,
        lambda z: reference.cross_entropy(z, hard),
        steps=steps,
        step=step_size * eps,
        eps=eps,
        norm=norm,
        batch_statistics=bn == "train",
    )
    expected = reference.cross_entropy(plain(x + delta), target).sum() / 5

    threat = Given({"linf": Linf, "l2": L2}[norm](eps=eps), **({} if kind == "zero" else {kind: start}))
    batch = Batch(x, LABELS if mass == 1 else target, torch.arange(5))
    losses = PgdAt(steps=steps, step_size=step_size, start=kind, attack_batchnorm=bn)(net, batch, threat, None)
    losses.total.backward()
    assert [*losses.terms] == ["classify"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10
    # The loss and, in train mode, every step of the attack before it each updated BatchNorm once.
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert reference.relative_error(net[2].running_var, plain.variance) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards == (steps + 1 if bn == "train" else 1)


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


def test_attacking_in_evaluation_mode_computes_the_first_output_of_the_mutual_terms_anew() -> None:
    net, x = reference.tiny_net(), reference.images(5)
    plain, threat = Plain(net), Linf(eps=0.1)
    start = a_start("uniform", "linf", x)
    begin, hard = reference.project(start, x, 0.1), reference.smoothed(LABELS, 1.0)
    delta, _ = reference.climb(
        plain, x, begin, lambda z: reference.cross_entropy(z, hard), steps=2, step=0.05, eps=0.1, batch_statistics=False
    )
    first, last = plain(x + begin), plain(x + delta)
    pair = 5 * reference.kl(last, first).sum() / 5
    method = PgdAt(steps=2, start="uniform", attack_batchnorm="eval", mutual=Mutual(alpha=5, reduction="example"))
    losses = method(net, Batch(x, LABELS), Given(threat, uniform=start))
    assert losses.terms["mutual_main"].item() == pytest.approx(pair.item(), rel=1e-10)
    losses.total.backward()
    expected = plain.gradient(pair + reference.cross_entropy(last, hard).sum() / 5)
    assert reference.relative_error(reference.gradient_of(net), expected) < 1e-10
