"""Optimizers, their groups of parameters, and one step of each against its formula."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from regmix.config import Experiment
from regmix.training.optimizer import make_optimizer, set_rate


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 4, 3, bias=False)
        self.head = nn.Linear(4, 2)


def rates(model: nn.Module, experiment: Experiment) -> dict[str, tuple[float, float]]:
    optimizer = make_optimizer(model, experiment)
    set_rate(optimizer, experiment.lr, 0.9)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_layers_nearer_to_the_images_learn_more_slowly() -> None:
    found = rates(Net(), Experiment(lr=1.0, layer_decay=0.5, weight_decay=0.1))
    assert found == {
        "scale": (0.125, 0.1), "stem.weight": (0.25, 0.1), "stem.bias": (0.25, 0.1), "norm.weight": (0.25, 0.1),
        "norm.bias": (0.25, 0.1), "body.weight": (0.5, 0.1), "head.weight": (1.0, 0.1), "head.bias": (1.0, 0.1),
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_and_norms_may_go_without_weight_decay(optimizer: str) -> None:
    found = rates(Net(), Experiment(optimizer=optimizer, decayed="weights", weight_decay=0.1))
    assert {name for name, (_, decay) in found.items() if decay} == {"stem.weight", "body.weight", "head.weight"}
    assert len(found) == 8


def test_two_steps_of_adamw_follow_the_formula() -> None:
    experiment = Experiment(optimizer="adamw", lr=0.1, momentum=0.8, weight_decay=0.3)
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = make_optimizer(model, experiment)
    w, m, v = model.weight.detach().clone(), 0, 0
    for t, (rate, beta) in enumerate([(0.1, 0.8), (0.05, 0.6)], start=1):
        gradient = torch.tensor([[1.0, -2.0]]).double() * t
        model.weight.grad = gradient.clone()
        set_rate(optimizer, rate, beta)
        optimizer.step()
        m, v = beta * m + (1 - beta) * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - rate * 0.3 * w
        w = w - rate * (m / (1 - beta**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    torch.testing.assert_close(model.weight.detach(), w, rtol=1e-12, atol=0)


def test_one_group_of_sgd_is_what_it_was() -> None:
    optimizer = make_optimizer(Net(), replace(Experiment(), lr=0.2))
    (group,) = optimizer.param_groups
    set_rate(optimizer, 0.1, 0.7)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.7, 5e-4)
