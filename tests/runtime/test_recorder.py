"""Recorded work: what is repeated, and what cannot be recorded."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from contracts.devices import DEVICE
from regmix.runtime.recorder import DRAWS, WAITS, recorder

pytestmark = pytest.mark.device


def test_a_repetition_does_the_same_operations_on_the_same_memory() -> None:
    x, total = torch.arange(4.0, device=DEVICE), torch.zeros(4, device=DEVICE)
    factor, ran = 2.0, 0

    def work() -> torch.Tensor:
        nonlocal ran
        ran += 1
        seen = factor * x[1:].flip(0)
        total.add_(1)
        total[1:].add_(seen)
        return seen + 1

    with torch.no_grad():
        tool = recorder(DEVICE)
        first, why = tool.rehearse(work)
        made, repeat = tool.record(work)
    assert why is None
    assert torch.equal(first, made)
    assert total.tolist() == [2, 14, 10, 6]
    factor = 100.0  # numbers of the host stay what they were
    x.copy_(torch.tensor([0.0, 5.0, 6.0, 7.0]))
    repeat()
    assert made.tolist() == [15, 13, 11]
    assert total.tolist() == [3, 29, 23, 17]
    assert ran == 2


def test_random_numbers_come_from_where_the_generator_stands() -> None:
    def work() -> torch.Tensor:
        return torch.rand(3, device=DEVICE) + torch.empty(3, device=DEVICE).uniform_(-1, 1)

    tool = recorder(DEVICE)
    tool.rehearse(work)
    torch.manual_seed(5)
    made, repeat = tool.record(work)
    found = [made.clone()]
    for _ in range(2):
        repeat()
        found.append(made.clone())
    torch.manual_seed(5)
    expected = [work() for _ in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    torch.manual_seed(5)
    repeat()
    assert torch.equal(made, expected[0])
    assert torch.equal(work(), expected[1])


def test_gradients_are_recorded_with_the_passes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(DEVICE)
    x = torch.randn(5, 3, device=DEVICE)

    def work() -> torch.Tensor:
        value = model(x).square().mean()
        value.backward()
        return value.detach()

    tool = recorder(DEVICE)
    tool.rehearse(work)
    model.zero_grad(set_to_none=True)
    made, repeat = tool.record(work)
    gradient = model[0].weight.grad
    with torch.no_grad():
        x.mul_(2)
        model[0].weight.mul_(0.5)
    repeat()
    found = made.clone(), gradient.clone()
    model.zero_grad(set_to_none=True)
    assert torch.equal(work(), found[0])
    assert torch.equal(model[0].weight.grad, found[1])
    assert int(model[1].num_batches_tracked) == 4


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (lambda x: x * 2 if x.sum() > 0 else x, WAITS),
        (lambda x: x[x > 1], WAITS),
        (lambda x: x.nonzero(), WAITS),
        (lambda x: x * x.max().item(), WAITS),
        (lambda x: x * random.random(), DRAWS),
        (lambda x: x * float(np.random.rand()), DRAWS),
        (lambda x: x[torch.arange(2, device=x.device)].sum(), None),
        (lambda x: x.masked_fill(x > 1, 0), None),
    ],
    ids=["branch", "mask", "nonzero", "item", "python", "numpy", "index", "fill"],
)
def test_what_cannot_be_recorded_is_told(work, why: str | None) -> None:
    x = torch.arange(4.0, device=DEVICE)
    tool = recorder(DEVICE)
    assert tool.rehearse(lambda: work(x))[1] == why
