"""Rows that an attack could not take on."""

import pytest
import torch
from torch import Tensor, nn

from regmix.attacks import Apgd, Cw, Ensemble, Fab, Fgsm, MiFgsm, Pgd, Square, Transfer, attempt
from regmix.threats import Linf

FOLLOW_GRADIENTS = [Fgsm(), Pgd(2), MiFgsm(2), Cw(2), Apgd(steps=5), Apgd(targets=2, steps=5), Fab(2, 5)]


class Steps(nn.Module):
    """A linear model of images in coarse grey levels where they are dark, so that rounding leaves no gradient there."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.factor = nn.Linear(48, 4), factor

    def forward(self, x: Tensor) -> Tensor:
        bright = (x.mean((1, 2, 3), keepdim=True) > 0.5).to(x)
        return self.factor * self.head((bright * x + (1 - bright) * ((x * 8).round() / 8 + 0 * x.detach())).flatten(1))


def images() -> Tensor:
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    x[3:] += 0.6
    return x


@pytest.mark.parametrize("attack", FOLLOW_GRADIENTS, ids=str)
def test_without_a_gradient_a_row_is_not_attacked(attack) -> None:
    model, x = Steps(), images()
    y = model(x).argmax(1)
    assert attempt(attack, model, x, y, Linf(0.02)).attacked.tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("attack", [Fgsm(), Pgd(2), Apgd(steps=5)], ids=str)
def test_a_cross_entropy_that_has_underflown_is_no_attack_and_the_margin_is_one(attack) -> None:
    model, x = Steps(1e6), images()[3:]
    y = model(x).argmax(1)
    assert not attempt(attack, model, x, y, Linf(1e-5)).attacked.any()
    assert attempt(Cw(2), model, x, y, Linf(1e-5)).attacked.all()


def test_a_gradient_that_is_not_finite_is_none() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), (x * 0).sum((1, 2, 3)).abs().sqrt()], 1)

    x = images()
    assert not attempt(Pgd(2), model, x, torch.zeros(6, dtype=torch.long), Linf(0.02)).attacked.any()


def test_random_search_needs_no_gradient_and_an_ensemble_attacks_what_one_of_it_does() -> None:
    model, x = Steps(), images()
    y = model(x).argmax(1)
    for attack in (Square(20), Ensemble((("pgd", Pgd(2)), ("square", Square(20))))):
        assert attempt(attack, model, x, y, Linf(0.02)).attacked.all()
    only = Ensemble((("pgd", Pgd(2)), ("fab", Fab(2, 5))))
    broken = model(x + only(model, x, y, Linf(0.02))).argmax(1) != y
    assert (attempt(only, model, x, y, Linf(0.02)).attacked | broken).tolist() == [False] * 3 + [True] * 3


def test_nothing_is_transferred_from_a_source_without_gradients() -> None:
    x = images()
    y = Steps()(x).argmax(1)
    attacked = attempt(Transfer(Steps(), MiFgsm(2)), lambda z: z.flatten(1)[:, :4], x, y, Linf(0.02)).attacked
    assert attacked.tolist() == [False] * 3 + [True] * 3


def test_it_leaves_no_traces_and_works_where_gradients_are_switched_off() -> None:
    model, x = Steps().train(), images()
    y = model(x).argmax(1)
    with torch.no_grad():
        attacked = attempt(Pgd(2), model, x, y, Linf(0.02)).attacked
    assert attacked.tolist() == [False] * 3 + [True] * 3
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
