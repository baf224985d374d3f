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


def run(first: float, brief: list[float], dear: list[tuple[float, float]], x: list[float]) -> tuple[list, list[float]]:
    """The rows that every attack saw, by their pixels, and the perturbations; `dear` holds limits and amounts."""
    attack = Shortened(Takes(first), tuple(map(Takes, brief)), tuple((limit, Takes(by)) for limit, by in dear))
    images = torch.tensor(x)[:, None, None, None]
    delta = attack(model, images, torch.zeros(len(x), dtype=torch.long), THREAT).flatten().tolist()
    return [one.seen for one in (attack.first, *attack.brief, *(one for _, one in attack.dear))], delta


def test_every_dear_attack_gets_the_rows_below_its_limit() -> None:
    # What the first attack leaves: broken, 1/16 of 1/2 (a share of 1/8), 3/16 of 5/8 (3/10), 9/16 of 1 (9/16).
    seen, delta = run(0.4375, [0.25], [(0.5, 0.3125), (0.2, 0.5)], [0.25, 0.5, 0.625, 1.0])
    assert seen == [[[0.25, 0.5, 0.625, 1.0]], [[0.5, 0.625, 1.0]], [[0.5, 0.625]], [[0.5]]]
    assert delta == [-0.4375, -0.5, -0.4375, -0.4375]


def test_a_dear_attack_that_brings_a_row_nearer_opens_the_next_one() -> None:
    seen, delta = run(0.25, [0.125], [(0.8, 0.5), (0.4, 0.5)], [0.75, 1.5])
    # The shares are 2/3 and 5/6, and after the first dear attack 1/3.
    assert seen == [[[0.75, 1.5]], [[0.75, 1.5]], [[0.75]], [[0.75]]]
    assert delta == [-0.5, -0.25]


def test_a_far_row_that_a_brief_attack_brings_nearer_gets_all_attacks() -> None:
    seen, delta = run(0.125, [0.0625, 0.25], [(0.3, 0.375), (0.1, 0.4375)], [0.75, 1.0])
    assert seen == [[[0.75, 1.0]]] * 5
    assert delta == [-0.4375, -0.4375]


def test_a_row_that_a_brief_attack_breaks_is_done() -> None:
    seen, delta = run(0.125, [0.5, 0.125], [(0.1, 0.25)], [0.4375, 1.0])
    assert seen == [[[0.4375, 1.0]], [[0.4375, 1.0]], [[1.0]], [[1.0]]]
    assert delta == [-0.5, -0.5]


def test_rows_that_nothing_brings_near_are_left_alone() -> None:
    seen, delta = run(0.125, [0.0625], [(0.4, 0.25)], [0.5, 1.0])
    assert seen == [[[0.5, 1.0]], [[0.5, 1.0]], []]
    assert delta == [-0.125, -0.125]
