"""Borrowing a model without leaving traces."""

import pytest
import torch
from torch import nn

from regmix.attacks import Eot, Screened
from regmix.attacks.base import fooled
from regmix.objectives import margin
from regmix.runtime.borrowed import borrowed


def a_model() -> nn.Sequential:
    """Modes and flags that are not all alike."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()), nn.Linear(3, 2))
    model[1].eval()
    model[1][1].train()
    model[2].weight.requires_grad_(False)
    return model


def traces(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def test_inside_everything_is_in_evaluation_mode_without_parameter_gradients() -> None:
    model = a_model()
    with borrowed(model):
        modes, flags = traces(model)
        assert not any(modes)
        assert not any(flags)


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_every_mode_and_flag_is_as_it_was(fails: bool) -> None:
    model = a_model()
    before = traces(model)
    assert {*before[0]} == {*before[1]} == {True, False}
    try:
        with borrowed(model), borrowed(model):
            if fails:
                raise RuntimeError("inside")
    except RuntimeError:
        assert fails
    assert traces(model) == before


def test_a_function_can_be_borrowed_too() -> None:
    with borrowed(torch.relu):
        pass


def test_without_a_screen_the_logits_decide_and_a_tie_is_not_broken() -> None:
    """The class of the lowest number wins a tie, in argmax and so in an evaluation; that may be the label."""
    logits, y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, torch.nan]]), torch.tensor([0, 0, 0, 0])
    assert fooled(lambda z: z, torch.zeros(4, 1, 1, 1), margin(logits, y), y).tolist() == [False, True, False, True]


def test_with_a_screen_only_the_exact_model_decides_and_only_near_the_boundary() -> None:
    exact = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    rough = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.4, 0.0], [0.6, 0.0]])
    asked = []

    def truth(images):
        asked.extend(images[:, 0, 0, 0].long().tolist())
        return exact[images[:, 0, 0, 0].long()]

    model, rows = Screened(lambda images: rough, truth, slack=0.5), torch.arange(4.0)[:, None, None, None]
    y = torch.zeros(4, dtype=torch.long)
    wrong = fooled(model, rows, margin(model(rows), y), y)
    assert wrong.tolist() == [False, True, True, False]
    assert asked == [0, 1, 2]


def test_a_random_model_is_asked_for_its_mean() -> None:
    draws = iter([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 0.0]])])
    assert Eot(lambda x: next(draws), 3)(torch.zeros(1, 1, 1, 1)).tolist() == [[1.0, 1.0]]
