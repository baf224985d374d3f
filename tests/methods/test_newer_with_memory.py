"""FGSM-PCO and TDAT against their formulas, in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import FgsmCuap, FgsmPco, FgsmUap, Setup, Tdat
from regmix.methods.memory import Memory
from regmix.methods.per_image import PerImage
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


def gradient_at(plain: Plain, x: Tensor, target: Tensor, batch_statistics: bool = True) -> tuple[Tensor, Tensor]:
    at = x.clone().requires_grad_()
    z = plain(at, batch_statistics)
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


@pytest.mark.parametrize("kind", [FgsmUap, FgsmCuap])
@pytest.mark.parametrize("mass", [None, 0.64])
def test_uap_moves_what_all_images_or_those_of_a_class_share(kind: type[FgsmUap], mass: float | None) -> None:
    # With statistics of the batch right after a linear layer, the gradients of a batch add up to zero.
    net, method, radius = reference.tiny_net().eval(), kind(lam=2.0, mu=0.3, radius=1.25), 1.25 * EPS
    groups = torch.zeros(COUNT, dtype=torch.int64) if kind is FgsmUap else LABELS % 3  # no image of class 3
    labels = LABELS % 3
    target = reference.smoothed(labels, 1.0 if mass is None else mass)
    memory = method.memory(Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu"))
    number = 1 if kind is FgsmUap else CLASSES
    begin = EPS * torch.sign(torch.rand(number, *SHAPE, generator=torch.Generator().manual_seed(1)).double() - 0.5)
    u, m = 1.25 * begin, torch.zeros(number, *SHAPE, dtype=torch.float64)
    plain = Plain(net)
    for step in range(3):
        x = reference.images(COUNT, step)
        batch = Batch(x, labels if mass is None else target, torch.arange(COUNT))
        start = projected(u[groups], x)
        z, g = gradient_at(plain, x + start, target, False)
        delta = projected(start + EPS * torch.sign(g), x)
        after = plain(x + delta, False)
        terms = {
            "classify": reference.cross_entropy(after, target).sum() / COUNT,
            "proximity": 2 * mean_square(after, z),
        }
        for group in set(groups.tolist()):
            m[group] = (g[groups == group] / g.abs().sum()).sum(0) / (groups == group).sum() + 0.3 * m[group]
            u[group] = (u[group] + radius * torch.sign(m[group])).clip(-radius, radius)
        net.zero_grad()
        losses = method(net, batch, Given(Linf(EPS), corner=begin), memory, Clock(0, 1, step, 3))
        torch.testing.assert_close(memory["delta"].gather(), u, rtol=0, atol=1e-12)
        assert_agrees(losses, terms, net, plain)
