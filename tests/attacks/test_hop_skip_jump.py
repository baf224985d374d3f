"""HopSkipJump's starts, and the rows that have none."""

import pytest
import torch
from torch import Tensor, nn

from regmix.attacks import HopSkipJump
from regmix.attacks.boundary import NOISE, first_point
from regmix.evaluation import evaluate
from regmix.threats import L2, Linf

NEVER_BY_NOISE = 0.9
"""The mean brightness above which `Bright` sees class 1; that of noise is about a half."""


class Bright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        lead = x.mean((1, 2, 3)) - NEVER_BY_NOISE
        return torch.stack([-lead, lead], 1)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    dark = 0.85 + 0.02 * torch.rand(3, 3, 4, 4, generator=generator)
    return torch.cat([dark, dark[:2] + 0.1])


def test_it_starts_from_images_of_the_batch_where_noise_is_of_no_use() -> None:
    x, model = images(), Bright()
    y = torch.tensor([0, 0, 0, 1, 1])
    assert torch.equal(model(x).argmax(1), y)
    for threat in (Linf(0.2), L2(1.0)):
        delta, attacked, _ = HopSkipJump(2000).attempt(model, x, y, threat)
        assert attacked.all()
        assert torch.equal(model(x + delta).argmax(1), 1 - y)


def test_a_row_without_a_start_is_not_attacked_and_is_not_said_to_be_robust() -> None:
    x, model, asked = images()[:3], Bright(), []

    def watched(z: Tensor) -> Tensor:
        asked.append(len(z))
        return model(z)

    delta, attacked, _ = HopSkipJump(2000).attempt(watched, x, torch.zeros(3, dtype=torch.long), Linf(0.2))
    assert not attacked.any()
    assert not delta.any()
    assert sum(asked) == 3 + 3 * NOISE


def test_the_table_says_so() -> None:
    x = images()
    y = torch.tensor([0, 0, 0, 1, 1])
    with pytest.warns(UserWarning, match="hop-skip-jump: 3 of 5 images were not attacked"):
        outcomes = evaluate(Bright(), [(x[:3], y[:3]), (x[3:], y[3:])], Linf(0.2), "hop-skip-jump")
    assert outcomes.not_attacked("hop-skip-jump") == 3
    assert outcomes.column("hop-skip-jump").tolist() == [True, True, True, False, False]
    together = evaluate(Bright(), [(x, y)], Linf(0.2), "hop-skip-jump")
    assert together.not_attacked("hop-skip-jump") == 0
    assert not together.column("hop-skip-jump").any()


def test_the_first_point_is_misclassified() -> None:
    x, generator = images(), torch.Generator().manual_seed(0)

    def wrong(z: Tensor) -> Tensor:
        return Bright()(z).argmax(1) != 0

    point = first_point(wrong, x[0], x[3:], L2(1.0), generator)
    assert wrong(point[None]).all()
    assert (point - x[0]).norm() < (x[3] - x[0]).norm()


class Linear(nn.Module):
    """Two classes; the boundary is a plane."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x.flatten(1) @ torch.linspace(-1, 1, x[0].numel()) + 0.4
        return torch.stack([lead, -lead], 1)


@pytest.mark.parametrize("most", [1, 3, 8, 20, 150, 151, 400])
def test_it_never_asks_more_than_its_queries_and_counts_every_one(most) -> None:
    x, asked = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(3)), []

    def watched(z: Tensor) -> Tensor:
        asked.append(Linear()(z).argmax(1))
        return Linear()(z)

    y = Linear()(x).argmax(1)
    for threat in (Linf(0.02), L2(0.05), Linf(0.3)):
        asked.clear()
        found = HopSkipJump(most).attempt(watched, x, y, threat)
        total = sum(map(len, asked))
        assert total <= most
        broken = bool(Linear()(x + found.delta).argmax(1) != y)
        assert broken == (int(found.queries[0]) > 0)
        if broken:  # the walk has ended with the batch of that query
            assert total - len(asked[-1]) < int(found.queries[0]) <= total
            assert torch.cat(asked)[int(found.queries[0]) - 1] != y[0]


def test_a_larger_budget_breaks_no_fewer_rows() -> None:
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    y = Linear()(x).argmax(1)
    broken = [
        int((HopSkipJump(most).attempt(Linear(), x[:1], y[:1], L2(eps)).queries > 0).sum())
        for eps in (0.2, 0.4)
        for most in (50, 300, 2000)
    ]
    assert broken[:3] == sorted(broken[:3])
    assert broken[3:] == sorted(broken[3:])
