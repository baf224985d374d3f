"""Which rows of a shortened ensemble get which attacks."""

import torch
from torch import Tensor

from regmix.attacks import Shortened
from regmix.threats import Linf, Threat

THREAT = Linf(0.5)


def model(images: Tensor) -> Tensor:
    """Class 0 leads by the pixel."""
    lead = images.flatten(1)[:, :1]
    return torch.cat([lead, torch.zeros_like(lead)], 1)


class Takes:
    """Takes so much from the pixel of every row, and remembers which rows it saw."""

    def __init__(self, amount: float) -> None:
        self.amount, self.seen = amount, []

    def __call__(self, model, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        self.seen.append(x.flatten().tolist())
        return -torch.full_like(x, self.amount)


def run(first: float, brief: list[float], full: list[float], x: list[float]) -> tuple[Shortened, list[float]]:
    attack = Shortened(Takes(first), tuple(map(Takes, brief)), tuple(map(Takes, full)), near=0.25)
    images = torch.tensor(x)[:, None, None, None]
    return attack, attack(model, images, torch.zeros(len(x), dtype=torch.long), THREAT).flatten().tolist()


def seen(attack: Shortened) -> list[list[list[float]]]:
    return [one.seen for one in (attack.first, *attack.brief, *attack.full)]


def test_near_rows_get_the_full_attacks_and_the_others_the_brief_ones() -> None:
    # leads after the first attack: broken, 0.0625 of 0.5 (near), 0.5625 of 1 (far)
    attack, delta = run(0.4375, [0.25], [0.4375, 0.5], [0.25, 0.5, 1.0])
    assert seen(attack) == [[[0.25, 0.5, 1.0]], [[1.0]], [[0.5]], [[0.5]]]
    assert delta == [-0.4375, -0.5, -0.4375]


def test_a_far_row_that_a_brief_attack_brings_nearer_gets_the_full_ones() -> None:
    attack, delta = run(0.125, [0.0625, 0.25], [0.375], [0.75, 1.0])
    assert seen(attack) == [[[0.75, 1.0]], [[0.75, 1.0]], [[0.75, 1.0]], [[0.75, 1.0]]]
    assert delta == [-0.375, -0.375]


def test_a_row_that_a_brief_attack_breaks_is_done() -> None:
    attack, delta = run(0.125, [0.5, 0.25], [0.375], [0.4375, 1.0])
    assert seen(attack) == [[[0.4375, 1.0]], [[0.4375, 1.0]], [[1.0]], [[1.0]]]
    assert delta[0] == -0.5
