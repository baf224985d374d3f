"""FGSM-RS against its formula."""

import pytest
import torch

from methods import reference
from methods.reference import Given, Plain
from regmix.methods import FgsmRs
from regmix.threats import L2, Linf
from regmix.types import Batch

LABELS = torch.tensor([0, 2, 3, 1, 2])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("step_size", [1.25, 0.5])
def test_it_is_one_long_step_from_a_uniform_start(step_size: float, norm: str) -> None:
    net, eps = reference.tiny_net(), {"linf": 0.1, "l2": 0.4}[norm]
    plain, x = Plain(net), reference.images(5)
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) * 0.2 - 0.1
    hard = reference.smoothed(LABELS, 1.0)
    # The public code of arXiv 2001.03994 clips the start to the image's range, too.
    start = reference.project(drawn, x, eps, norm)
    delta, _ = reference.climb(
        plain, x, start, lambda z: reference.cross_entropy(z, hard), steps=1, step=step_size * eps, eps=eps, norm=norm
    )
    target = reference.smoothed(LABELS, 0.6)
    expected = reference.cross_entropy(plain(x + delta), target).sum() / 5

    threat = Given({"linf": Linf, "l2": L2}[norm](eps=eps), uniform=drawn)
    losses = FgsmRs(step_size=step_size)(net, Batch(x, target, torch.arange(5)), threat, None)
    losses.total.backward()
    assert [*losses.terms] == ["classify"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards == 2
    assert FgsmRs().step_size == 1.25
