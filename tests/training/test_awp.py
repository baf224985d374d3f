"""Adversarial weight perturbation against its formula."""

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import SHAPE, Plain
from regmix.methods import RegMix, Setup, Standard
from regmix.methods.memory import Memory
from regmix.threats import Linf
from regmix.training.awp import at_perturbed_weights
from regmix.types import Batch, Clock, Losses

LABELS = torch.tensor([0, 2, 3, 1, 2])
SIZE = 0.03


def a_step(net: nn.Module, method: Standard | RegMix) -> object:
    batch = Batch(reference.images(5), LABELS, torch.arange(5))

    def step(memory: Memory | None) -> Losses:
        losses = method(net, batch, Linf(eps=0.1), memory, Clock(1, 2, 0, 1))
        losses.total.backward()
        return losses

    return step


def test_it_is_the_gradient_at_the_weights_moved_along_their_own_gradient() -> None:
    """With clean images as the batch, where the attack has no part: w + SIZE ||w|| g / ||g|| layer by layer."""
    net, plain = reference.tiny_net(), Plain(reference.tiny_net())
    target = reference.smoothed(LABELS, 1.0)

    def loss() -> Tensor:
        return reference.cross_entropy(plain(reference.images(5)), target).sum() / 5

    statistics = plain.mean.clone(), plain.variance.clone()
    gradients = torch.autograd.grad(loss(), plain.parameters)
    plain.mean, plain.variance = statistics
    for place in (0, 4):  # the two weight matrices; the others are biases and BatchNorm's
        w, g = plain.parameters[place], gradients[place]
        moved = w + SIZE * (w**2).sum() ** 0.5 * g / (g**2).sum() ** 0.5
        plain.parameters[place] = moved.detach().requires_grad_()
    expected = loss()

    losses = at_perturbed_weights(a_step(net, Standard()), net, None, SIZE)
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(expected)) < 1e-10
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert int(net[2].num_batches_tracked) == 1


def test_the_weights_come_back_exactly_and_the_memory_is_written_once() -> None:
    net, method = reference.tiny_net(), RegMix(start="carried")
    before = [parameter.detach().clone() for parameter in net.parameters()]
    memory = method.memory(Setup(5, 4, SHAPE, Linf(eps=0.1)))
    memory["delta"].gather().random_(-100, 100)
    first = memory["delta"].gather().clone()
    seen = []
    step = a_step(net, method)

    def watched(given: Memory | None) -> Losses:
        losses = step(given)
        seen.append(torch.equal(memory["delta"].gather(), first))
        return losses

    at_perturbed_weights(watched, net, memory, SIZE)
    assert seen == [True, False]
    for parameter, value in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_a_layer_without_a_gradient_stays() -> None:
    net = reference.tiny_net()
    net[1].weight.requires_grad_(False)
    before = net[1].weight.clone()
    at_perturbed_weights(a_step(net, Standard()), net, None, SIZE)
    assert torch.equal(net[1].weight, before)
    assert net[1].weight.grad is None
