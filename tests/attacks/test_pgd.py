"""PGD."""

import pytest
import torch

from methods import reference
from methods.reference import Given, Plain
from regmix.attacks import Pgd
from regmix.threats import L2, Linf

LABELS = torch.tensor([0, 2, 3, 1, 2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("steps", "step_size"), [(1, 0.25), (10, 0.25), (5, 1.0)])
def test_it_climbs_from_a_projected_uniform_start(steps: int, step_size: float, norm: str) -> None:
    net, x, eps = reference.tiny_net(), reference.images(5), {"linf": 0.1, "l2": 0.5}[norm]
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) * 0.2 - 0.1
    hard = reference.smoothed(LABELS, 1.0)
    expected, _ = reference.climb(
        Plain(net),
        x,
        reference.project(drawn, x, eps, norm),
        lambda z: reference.cross_entropy(z, hard),
        steps=steps,
        step=step_size * eps,
        eps=eps,
        norm=norm,
        batch_statistics=False,
    )
    threat = Given({"linf": Linf, "l2": L2}[norm](eps=eps), uniform=drawn)
    delta = Pgd(steps, step_size)(net, x, LABELS, threat)
    torch.testing.assert_close(delta, expected, rtol=0, atol=1e-13)


def test_seeds_begin_elsewhere() -> None:
    net, x = reference.tiny_net(), reference.images(5)
    one, other = (Pgd(1, seed=seed)(net, x, LABELS, Linf(eps=0.1)) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_the_defaults_are_the_fields_pgd_10() -> None:
    assert Pgd() == Pgd(steps=10, step_size=0.25)
