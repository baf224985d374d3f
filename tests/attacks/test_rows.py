"""Rows that leave, pairs of a row and a target, and pairs that are asked about again."""

import torch
from torch import Tensor

from regmix.attacks.rows import Rows


def images(count: int) -> Tensor:
    return torch.zeros(count, 1, 1, 1)


def test_rows_leave_with_what_broke_them() -> None:
    x = torch.zeros(4, 1, 1, 1)
    rows, state = Rows(x), torch.arange(4)
    (state,) = rows.leave(torch.tensor([False, True, False, False]), torch.full_like(x, 1.0), state)
    assert state.tolist() == [0, 2, 3]
    (state,) = rows.leave(torch.tensor([True, False, True]), torch.full((3, 1, 1, 1), 2.0), state)
    assert state.tolist() == [2]
    assert rows.left.tolist() == [2]
    assert rows.delta.flatten().tolist() == [2, 1, 0, 2]


def test_pairs_come_with_the_first_target_alone_and_then_as_many_as_fit() -> None:
    rows, wrong = Rows(images(3)), torch.arange(12).view(3, 4)
    found = [(pairs.tolist(), targets.tolist()) for pairs, targets in rows.pairs(wrong, 6)]
    assert found == [
        ([0, 1, 2], [0, 4, 8]),
        ([0, 0, 1, 1, 2, 2], [1, 2, 5, 6, 9, 10]),
        ([0, 1, 2], [3, 7, 11]),
    ]


def test_a_row_with_a_broken_pair_leaves_with_its_likeliest_target() -> None:
    rows = Rows(images(3))
    pairs = torch.tensor([0, 0, 1, 1, 2])
    broken, distance = torch.tensor([True, True, False, True, False]), torch.tensor([0.0, 0.0, 0.5, 0.0, 0.3])
    rows.settle(pairs, broken, torch.arange(1.0, 6)[:, None, None, None], distance)
    assert rows.left.tolist() == [2]
    assert rows.delta.flatten().tolist() == [1, 4, 5]


def test_a_row_that_stays_keeps_the_perturbation_that_came_nearest() -> None:
    rows, nobody = Rows(images(2)), torch.zeros(3, dtype=torch.bool)
    pairs = torch.tensor([0, 0, 1])
    rows.settle(pairs, nobody, torch.tensor([1.0, 2, 3])[:, None, None, None], torch.tensor([0.5, 0.2, 0.9]))
    rows.settle(pairs, nobody, torch.tensor([4.0, 5, 6])[:, None, None, None], torch.tensor([0.3, 0.4, 0.8]))
    assert rows.delta.flatten().tolist() == [2, 6]
    torch.testing.assert_close(rows.least, torch.tensor([0.2, 0.8]))


def test_pairs_asked_again_are_those_whose_row_is_left_when_their_turn_comes() -> None:
    rows = Rows(images(4))
    rows.left = torch.tensor([0, 2, 3])
    close = [(torch.tensor([0, 1, 2]), torch.tensor([5, 6, 7])), (torch.tensor([0, 3]), torch.tensor([8, 9]))]
    turns = []
    for pairs, targets in rows.again(close, 2):
        turns.append((pairs.tolist(), targets.tolist()))
        rows.left = rows.left[rows.left != 0]
    assert turns == [([0, 2], [5, 7]), ([3], [9])]
    assert not list(rows.again([], 2))
