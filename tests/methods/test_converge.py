"""FGSM-RS-CS and FGSM-MEP-CS against their formulas, in float64, over the steps of four epochs."""

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, SHAPE, Given, Plain
from regmix.methods import FgsmMepCs, FgsmRsCs, Setup
from regmix.methods.converge import converge_weight
from regmix.methods.memory import Memory
from regmix.methods.per_image import PerImage
from regmix.methods.storage import OneForAll
from regmix.threats import Linf
from regmix.types import Batch, Clock

COUNT, EPS, EPOCHS, STEPS, THRESHOLD = 8, 0.3, 4, 2, 0.02
LABELS = torch.arange(COUNT) % CLASSES


def clipped(x: Tensor) -> Tensor:
    return x.minimum(torch.ones_like(x)).maximum(torch.zeros_like(x))


def mean_loss(z: Tensor, mass: float) -> Tensor:
    return reference.cross_entropy(z, reference.smoothed(LABELS, mass)).sum() / COUNT


def gradient_at(plain: Plain, x: Tensor, mass: float) -> Tensor:
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(reference.cross_entropy(plain(at), reference.smoothed(LABELS, mass)).sum(), at)
    return g


class Jump:
    """k of a step, from the losses of all steps so far, kept in plain lists."""

    def __init__(self) -> None:
        self.by_epoch: list[list[float]] = [[] for _ in range(EPOCHS)]

    def of(self, epoch: int, loss: float) -> float:
        before = self.by_epoch[epoch - 1] if epoch else []
        self.by_epoch[epoch].append(loss)
        if not 2 <= epoch < EPOCHS - 1:
            return 0.0
        gap = loss - sum(before) / len(before)
        return 0.0 if abs(gap) <= THRESHOLD else (1.0 if gap > 0 else -1.0)


def test_a_loss_that_is_not_finite_counts_for_nothing() -> None:
    """Also as the first of an epoch, which begins a new mean."""
    batch = Batch(torch.zeros(1, *SHAPE), torch.zeros(1, dtype=torch.long))
    memory = Memory(history=OneForAll((3,), "cpu"))
    found = []
    for epoch, losses in enumerate([[1.0, 3.0], [torch.nan, 5.0, 7.0], [torch.nan, 6.5]]):
        for step, loss in enumerate(losses):
            k = converge_weight(batch, memory, Clock(epoch, 9, step, 3), torch.tensor(loss), 0.1, begin=1)
            found.append(k.item())
    assert found[:2] == [0, 0]
    assert found[3:5] == [1, 1]  # 5 and 7 against 2
    assert found[6] == 1  # 6.5 against 6


def assert_step(losses, classify: Tensor, normal: Tensor, k: float, net, plain: Plain) -> None:
    losses.total.backward()
    assert losses.stats["converge_weight"].item() == k
    assert losses.terms["classify"].item() == pytest.approx(classify.item(), rel=1e-9)
    assert losses.terms["converge"].item() == pytest.approx(k * normal.item(), rel=1e-9)
    expected = plain.gradient(classify + k * normal)
    assert reference.relative_error(reference.gradient_of(net), expected) < 1e-9
    assert int(net[2].num_batches_tracked) == plain.forwards == 3
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12  # the passes come in this order


@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_rs_cs_pulls_the_noisy_loss_towards_that_of_the_epoch_before(mass: float) -> None:
    method, jump, seen = FgsmRsCs(threshold=THRESHOLD), Jump(), set()
    memory = Memory(history=OneForAll((3,), "cpu"))
    memory["history"].values = memory["history"].values.double()
    for number in range(EPOCHS * STEPS):
        epoch, step = divmod(number, STEPS)
        net, x = reference.tiny_net(), reference.images(COUNT, number)
        draw = Linf(EPS).uniform(x, torch.Generator().manual_seed(number))
        plain = Plain(net)
        noisy = clipped(x + draw)
        g = gradient_at(plain, noisy, 1.0)
        classify = mean_loss(plain(clipped(noisy + EPS * torch.sign(g))), mass)
        normal = mean_loss(plain(noisy), mass)
        k = jump.of(epoch, normal.item())
        seen.add(k)
        labels = LABELS if mass == 1 else reference.smoothed(LABELS, mass)
        clock = Clock(epoch, EPOCHS, step, STEPS)
        losses = method(net, Batch(x, labels, torch.arange(COUNT)), Given(Linf(EPS), uniform=draw), memory, clock)
        assert_step(losses, classify, normal, k, net, plain)
    assert len(seen) > 1, "the term counts in some step"


def test_mep_cs_pulls_the_clean_loss_and_moves_each_images_start() -> None:
    method, jump, mass = FgsmMepCs(threshold=THRESHOLD, reset=3, mu=0.6), Jump(), 0.6
    setup = Setup(COUNT, CLASSES, SHAPE, Linf(EPS), 0, "cpu")
    kinds = {
        name: PerImage(COUNT, SHAPE, 0, torch.device("cpu"), dtype=torch.float64) for name in ("delta", "momentum")
    }
    memory = Memory(**kinds, history=OneForAll((3,), "cpu"))
    memory["history"].values = memory["history"].values.double()
    assert {*method.memory(setup).parts} == {*memory.parts}
    x, target = reference.images(COUNT, 0), reference.smoothed(LABELS, mass)
    m = delta = torch.zeros_like(x)
    seen = set()
    for number in range(EPOCHS * STEPS):
        epoch, step = divmod(number, STEPS)
        net = reference.tiny_net(seed=number) if number else reference.tiny_net()
        corner = EPS * torch.sign(torch.rand(x.shape, generator=torch.Generator().manual_seed(number)).double() - 0.5)
        plain = Plain(net)
        fresh = epoch % 3 == 0
        start = corner if fresh else delta
        g = gradient_at(plain, x + start, mass)
        m = g / g.abs().mean() + (0 if fresh else 0.6 * m)
        delta = reference.project(start + EPS * torch.sign(m), x, EPS)
        classify = mean_loss(plain(x + reference.project(start + EPS * torch.sign(g), x, EPS)), mass)
        normal = mean_loss(plain(x), mass)
        k = jump.of(epoch, normal.item())
        seen.add(k)
        clock = Clock(epoch, EPOCHS, step, STEPS)
        losses = method(net, Batch(x, target, torch.arange(COUNT)), Given(Linf(EPS), corner=corner), memory, clock)
        assert_step(losses, classify, normal, k, net, plain)
        torch.testing.assert_close(memory["delta"].read(Batch(x, LABELS, torch.arange(COUNT))), delta)
    assert len(seen) > 1
