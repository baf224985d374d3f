"""Borrowing a model without leaving traces."""

import pytest
import torch
from torch import nn

from regmix.attacks import borrowed


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
