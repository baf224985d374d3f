"""FGSM-PCO and TDAT against their formulas, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import FgsmPco, Setup, Tdat
from regmix.methods.memory import Memory, PerImage
from regmix.threats import Linf
from regmix.types import Batch, Clock, Losses

COUNT, EPS = 7, 0.15
LABELS = torch.arange(COUNT) % CLASSES


def a_corner(seed: int) -> Tensor:
    return EPS * torch.sign(torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(seed)).double() - 0.5)


def a_batch(seed: int, mass: float | None) -> Batch:
    labels = LABELS if mass is None else reference.smoothed(LABELS, mass)
    return Batch(reference.images(COUNT, seed), labels, torch.arange(COUNT))


def projected(delta: Tensor, x: Tensor) -> Tensor:
    return reference.project(delta, x, EPS)


def gradient_at(plain: Plain, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    at = x.clone().requires_grad_()
    z = plain(at)
    (g,) = torch.autograd.grad(reference.cross_entropy(z, target).sum(), at, retain_graph=True)
    return z, g


def mean_square(one: Tensor, other: Tensor) -> Tensor:
    return ((one - other) ** 2).sum() / one.numel()


def assert_agrees(losses: Losses, terms: dict[str, Tensor], net: nn.Module, plain: Plain) -> None:
    losses.total.backward()
    assert [*losses.terms] == [*terms]
    for name, expected in terms.items():
        assert losses.terms[name].item() == pytest.approx(expected.item(), rel=1e-9)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(terms.values()))) < 1e-9
    assert int(net[2].num_batches_tracked) == plain.forwards


@pytest.mark.parametrize("mass", [None, 0.6])
@pytest.mark.parametrize("epoch", [0, 1])
def test_pco_trains_on_a_mixture_that_confidence_chooses(epoch: int, mass: float | None) -> None:
    net, batch = reference.tiny_net(), a_batch(0, mass)
    plain, x = Plain(net), batch.x
    target = reference.smoothed(LABELS, 1.0 if mass is None else mass)
    memory = Memory(delta=PerImage(COUNT, SHAPE, 0, torch.device("cpu"), dtype=torch.float64))
    kept = projected(0.7 * a_corner(2), x)
    memory["delta"].write(batch, kept)
    start = kept if epoch else a_corner(1)
    z, g = gradient_at(plain, x + start, target)
    delta = projected(start + EPS * torch.sign(g), x)
    c = (1 - reference.softmax(z)[torch.arange(COUNT), LABELS]).reshape(-1, 1, 1, 1)
    mixed = plain(c * (x + start) + (1 - c) * (x + 1.5 * delta))
    after = plain(x + delta)
    terms = {
        "classify": reference.cross_entropy(mixed, target).sum() / COUNT,
        "together": 3 * (mean_square(after, z) - mean_square(after, mixed)).abs(),
    }
    losses = FgsmPco(lam=3.0)(net, batch, Given(Linf(EPS), corner=a_corner(1)), memory, Clock(epoch, 2, 0, 1))
    assert torch.equal(memory["delta"].read(batch), delta)
    assert_agrees(losses, terms, net, plain)


@pytest.mark.parametrize(("epoch", "mass"), [(0, 0.6 * math.tan(1)), (7, 0.6 * math.tan(0.3)), (9, 0.15)])
def test_tdat_relaxes_the_labels_as_the_epochs_pass(epoch: int, mass: float) -> None:
    net, method = reference.tiny_net(), Tdat(lam=2.0)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu"))
    clock = Clock(epoch, 10, 0, 1)
    batch = a_batch(3, None)
    kept = projected(0.7 * a_corner(2), batch.x)
    memory["delta"].write(a_batch(4, None), kept)
    x, start = batch.x, a_corner(1) if epoch == 0 else kept
    plain = Plain(net)
    z, g = gradient_at(plain, x + start, reference.smoothed(LABELS, mass))
    delta = projected(start + EPS * torch.sign(g), x)
    after = plain(x + delta)
    one_hot = reference.smoothed(LABELS, 1.0)
    mixed = mass * one_hot + (1 - mass) / CLASSES
    doubt = torch.tanh(1 - (reference.softmax(z) * one_hot).sum(1))
    terms = {
        "classify": reference.cross_entropy(after, mixed).sum() / COUNT,
        "proximity": 2 * (((z - after) ** 2).sum(1) * doubt).sum() / COUNT,
    }
    losses = method(net, batch, Given(Linf(EPS), corner=a_corner(1)), memory, clock)
    torch.testing.assert_close(memory["delta"].read(batch), delta)
    assert_agrees(losses, terms, net, plain)


def test_tdat_takes_labels_that_are_soft_already() -> None:
    batch = a_batch(0, 0.5)
    method, threat = Tdat(), Given(Linf(EPS), corner=a_corner(1))
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu"))
    losses = method(reference.tiny_net(), batch, threat, memory, Clock(0, 10, 0, 1))
    expected = reference.cross_entropy(losses.logits, reference.smoothed(LABELS, 0.5)).sum() / COUNT
    assert losses.terms["classify"].item() == pytest.approx(expected.item(), rel=1e-9)
