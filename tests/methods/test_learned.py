"""The network that a method trains beside the model, against torch's own Adam and modules."""

import copy

import torch
from torch import Tensor, nn

from regmix.methods.learned import Learned


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def gradient_of(network: Learned, state: Tensor, x: Tensor, *, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    weights, statistics, *_ = network.parts(state.clone())
    weights = weights.detach().requires_grad_()
    output = network(weights, statistics, x, train=train)
    (gradient,) = torch.autograd.grad(output.square().sum(), weights)
    return output.detach(), statistics, gradient


def test_it_learns_as_the_module_does_under_adam() -> None:
    torch.manual_seed(0)
    network = Learned(build, rate=0.01, weight_decay=0.1)
    state = network.fresh("cpu").double()
    torch.manual_seed(0)
    module = build().double()
    adam = torch.optim.Adam(module.parameters(), 0.01, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        output, statistics, gradient = gradient_of(network, state, x, train=True)
        expected = module.train()(x)
        torch.testing.assert_close(output, expected)
        adam.zero_grad()
        expected.square().sum().backward()
        torch.testing.assert_close(gradient, torch.cat([p.grad.flatten() for p in module.parameters()]))
        adam.step()
        state = network.stepped(state, statistics, gradient)
        torch.testing.assert_close(network.parts(state)[0], torch.cat([p.flatten() for p in module.parameters()]))
        shown = gradient_of(network, state, x, train=False)[0]
        torch.testing.assert_close(shown, copy.deepcopy(module).eval()(x))
    assert network.parts(state)[-1].item() == 5


def test_a_pass_in_evaluation_mode_changes_nothing() -> None:
    network = Learned(build, rate=0.01)
    state = network.fresh("cpu")
    before = state.clone()
    weights, statistics, *_ = network.parts(state)
    network(weights, statistics, torch.randn(6, 3), train=False)
    assert torch.equal(state, before)
