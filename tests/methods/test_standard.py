"""Standard training against its formula."""

import pytest
import torch

from methods import reference
from methods.reference import Given, Plain
from regmix.methods import Standard
from regmix.threats import Linf
from regmix.types import Batch

LABELS = torch.tensor([0, 2, 3, 1, 2])


@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_it_is_cross_entropy_on_the_clean_images(mass: float) -> None:
    net = reference.tiny_net()
    plain, x, target = Plain(net), reference.images(5), reference.smoothed(LABELS, mass)
    logits = plain(x)
    expected = reference.cross_entropy(logits, target).sum() / 5

    batch = Batch(x, LABELS if mass == 1 else target, torch.arange(5))
    losses = Standard()(net, batch, Given(Linf()), None)  # no start is drawn
    losses.total.backward()
    assert [*losses.terms] == ["classify"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10
    assert reference.relative_error(losses.logits, logits) < 1e-12
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert reference.relative_error(net[2].running_var, plain.variance) < 1e-12
