"""SSAT against its rule, in float64, example by example."""

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, Given, Plain
from regmix.methods import Ssat
from regmix.threats import Linf
from regmix.types import Batch

COUNT, EPS = 24, 0.3


@pytest.mark.parametrize("points", [1, 3, 4])
def test_every_example_is_trained_at_the_first_point_that_is_wrong(points: int) -> None:
    net, x = reference.tiny_net(), reference.images(COUNT)
    draw = Linf(EPS).uniform(x, torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = net.eval()(x).argmax(1)  # right at first, so that all cases occur
    labels[::6] = (labels[::6] + 1) % CLASSES
    net.train()
    plain = Plain(net)
    at = (x + draw).minimum(torch.ones_like(x)).maximum(torch.zeros_like(x)).requires_grad_()
    z = plain(at)
    (g,) = torch.autograd.grad(reference.cross_entropy(z, reference.smoothed(labels, 1.0)).sum(), at)
    delta = reference.project((at - x).detach() + 1.25 * EPS * torch.sign(g), x, EPS)
    tests = [plain(x + k / points * delta, False).argmax(1) for k in range(1, points)]
    shares = []
    for i in range(COUNT):
        wrong = [k for k in range(1, points) if tests[k - 1][i] != labels[i]]
        shares.append(0.0 if z[i].argmax() != labels[i] else wrong[0] / points if wrong else 1.0)
    assert {0.0, 1.0} <= {*shares}
    assert points == 1 or len({*shares}) > 2
    share = torch.tensor(shares, dtype=torch.float64)
    after = plain(x + share.reshape(-1, 1, 1, 1) * delta)
    expected: Tensor = reference.cross_entropy(after, reference.smoothed(labels, 1.0)).sum() / COUNT
    losses = Ssat(checkpoints=points)(net, Batch(x, labels, torch.arange(COUNT)), Given(Linf(EPS), uniform=draw))
    losses.total.backward()
    assert losses.stats["part"].item() == pytest.approx(share.mean().item())
    assert losses.terms["classify"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-9
    assert int(net[2].num_batches_tracked) == 2, "the tests leave BatchNorm's statistics alone"
