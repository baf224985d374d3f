"""Square counts the query that breaks a row, whoever else is in the batch."""

import pytest
import torch
from torch import Tensor

from regmix.attacks import Square, parse_attack
from regmix.attacks.decisions import Decisions, Enough
from regmix.threats import L2, Linf


def model(x: Tensor) -> Tensor:
    lead = x.flatten(1) @ torch.linspace(-1, 1, x[0].numel())
    return torch.stack([lead + 0.2, -lead, lead / 2], 1)


def test_the_counted_query_is_the_one_that_was_misclassified_first() -> None:
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    for threat in (Linf(0.08), L2(0.25)):
        asked: list[int] = []

        def watched(z: Tensor, asked: list[int] = asked) -> Tensor:
            asked.append(len(z))
            return model(z)

        found = Square(queries=40).attempt(watched, x, y, threat)
        assert torch.equal(found.delta, Square(queries=40)(model, x, y, threat))
        broken = model(x + found.delta).argmax(1) != y
        assert torch.equal(found.queries > 0, broken)
        assert 0 < int(broken.sum()) < len(x)
        # A row is asked once per query until it is broken, so the counts add up to what the model has seen.
        assert sum(asked) == int(torch.where(broken, found.queries, 40).sum())
        assert [int(n) for n in torch.bincount(found.queries[broken], minlength=41)[1:40]] == [
            before - after for before, after in zip(asked, [*asked[1:], asked[-1]], strict=True)
        ][:39]


def test_an_image_that_was_known_takes_no_query() -> None:
    decisions = Decisions(model, torch.full((1, 4, 4), 0.5), torch.tensor(0), Linf(0.1), 40)
    far = torch.full((3, 1, 4, 4), 0.9)
    decisions.used = 7
    near = far.clone()
    near[2] = 0.55
    with pytest.raises(Enough):
        decisions.known(near)
    assert decisions.success == decisions.used == 7
    decisions.known(far[:0])


def test_names_say_the_budget() -> None:
    assert parse_attack("square-300") == Square(queries=300)
    assert parse_attack("hop-skip-jump-70").queries == 70
