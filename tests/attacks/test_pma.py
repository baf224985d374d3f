"""The margin of probabilities, which PMA ascends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regmix.attacks.pma import probability_margin


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_it_is_one_plus_the_largest_wrong_probability_minus_the_true_one(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (5,), generator=generator)
    for row, found in enumerate(probability_margin(logits, y).tolist()):
        p = [float(value) for value in logits[row].exp() / logits[row].exp().sum()]
        true = p.pop(int(y[row]))
        assert found == pytest.approx(1 + max(p) - true, rel=1e-9)


@pytest.mark.parametrize("lead", [0.0, 1.0, 20.0, 80.0])
def test_two_classes_have_the_closed_form_in_float32_even_where_the_probability_is_nearly_one(lead: float) -> None:
    """2 sigmoid(-lead), whose slope is -2 sigmoid(lead) sigmoid(-lead); 1 - p_y itself is 0 in float32 from 17 on."""
    logits = torch.tensor([[lead, 0.0]], requires_grad=True)
    value = probability_margin(logits, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    exact = torch.tensor(lead, dtype=torch.float64)
    slope = float(-2 * torch.sigmoid(exact) * torch.sigmoid(-exact))
    assert value.detach().item() == pytest.approx(float(2 * torch.sigmoid(-exact)), rel=1e-5)
    assert gradient[0].tolist() == pytest.approx([slope, -slope], rel=1e-5)
    assert slope != 0
