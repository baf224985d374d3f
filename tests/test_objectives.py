"""Objectives against scipy and closed forms, in the places where floating point is hardest, too."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special
from torch import Tensor

from regmix.objectives import accuracy, cross_entropy, dlr, hard, kl, log_probabilities, margin, smooth, targeted_dlr

quick = settings(deadline=None, max_examples=60)
logit_rows = arrays(np.float64, (4, 5), elements=st.floats(-30, 30)).map(torch.from_numpy)
labels = arrays(np.int64, 4, elements=st.integers(0, 4)).map(torch.from_numpy)


def rows_of_probabilities(logits: Tensor) -> Tensor:
    return torch.from_numpy(special.softmax(logits.numpy(), 1))


@quick
@given(logit_rows)
def test_log_probabilities_are_scipys(logits: Tensor) -> None:
    expected = special.log_softmax(logits.numpy(), 1)
    np.testing.assert_allclose(log_probabilities(logits).numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_everything_is_computed_in_float32_or_better(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = torch.tensor([0, 1, 2, 4])
    exact = special.log_softmax(logits.double().numpy(), 1)
    log_p = log_probabilities(logits)
    assert log_p.dtype == cross_entropy(logits, y).dtype == margin(logits, y).dtype == torch.float32
    np.testing.assert_allclose(log_p.numpy(), exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(cross_entropy(logits, y).numpy(), -exact[range(4), y], rtol=1e-6, atol=1e-6)
    assert log_probabilities(logits.double()).dtype == torch.float64


@quick
@given(logit_rows, labels, logit_rows)
def test_cross_entropy_is_its_formula_for_labels_and_distributions(logits: Tensor, y: Tensor, other: Tensor) -> None:
    log_p = special.log_softmax(logits.numpy(), 1)
    np.testing.assert_allclose(cross_entropy(logits, y).numpy(), -log_p[range(4), y], rtol=1e-12, atol=1e-12)
    target = rows_of_probabilities(other)
    expected = -(target.numpy() * log_p).sum(1)
    np.testing.assert_allclose(cross_entropy(logits, target).numpy(), expected, rtol=1e-12, atol=1e-12)


@quick
@given(logit_rows, logit_rows)
def test_kl_is_scipys_and_its_order_matters(a: Tensor, b: Tensor) -> None:
    p, q = rows_of_probabilities(a).numpy(), rows_of_probabilities(b).numpy()
    forward, backward = (kl(log_probabilities(s), log_probabilities(t)).numpy() for s, t in ((a, b), (b, a)))
    np.testing.assert_allclose(forward, special.rel_entr(p, q).sum(1), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(backward, special.rel_entr(q, p).sum(1), rtol=1e-9, atol=1e-11)
    assert (forward >= -1e-12).all()
    assert (kl(log_probabilities(a), log_probabilities(a)) == 0).all()


@quick
@given(logit_rows, logit_rows)
def test_kl_has_the_gradients_of_its_formula_on_both_sides(a: Tensor, b: Tensor) -> None:
    """d KL / d logits_p = p (log p - log q - KL) and d KL / d logits_q = q - p."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    kl(log_probabilities(a), log_probabilities(b)).sum().backward()
    log_p, log_q = (special.log_softmax(z.detach().numpy(), 1) for z in (a, b))
    p, q = np.exp(log_p), np.exp(log_q)
    divergence = (p * (log_p - log_q)).sum(1, keepdims=True)
    np.testing.assert_allclose(a.grad.numpy(), p * (log_p - log_q - divergence), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(b.grad.numpy(), q - p, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_kl_and_its_gradients_stay_finite_where_probabilities_underflow(dtype: torch.dtype) -> None:
    # -1e4 against +1e4, both against a uniform distribution, and each against itself.
    far = torch.tensor(
        [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 0.0], [1e4, -1e4, 0.0], [1e4, 1e4, 1e4]], dtype=dtype
    )
    other = torch.tensor(
        [[-1e4, 1e4, 0.0], [0.0, 0.0, 0.0], [1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]], dtype=dtype
    )
    a, b = far.requires_grad_(), other.requires_grad_()
    divergence = kl(log_probabilities(a), log_probabilities(b))
    divergence.sum().backward()
    assert divergence.dtype == torch.promote_types(dtype, torch.float32)
    assert divergence.isfinite().all()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
    # KL of a point mass at 0 against one at 1 is the gap between the logits, here 2e4 rounded to the type.
    gap = (far[0, 0] - other[0, 0]).item()
    assert divergence[0].item() == pytest.approx(gap, rel=1e-6)
    assert divergence[3].item() == 0
    torch.testing.assert_close(b.grad[0], torch.tensor([-1.0, 1.0, 0.0], dtype=dtype))


@quick
@given(logit_rows, labels)
def test_margin_is_the_best_wrong_logit_minus_the_true_one(logits: Tensor, y: Tensor) -> None:
    for value, row, label in zip(margin(logits, y).tolist(), logits.tolist(), y.tolist(), strict=True):
        true = row.pop(label)
        assert value == max(row) - true


@quick
@given(logit_rows, labels)
def test_margin_is_positive_exactly_where_the_example_is_misclassified(logits: Tensor, y: Tensor) -> None:
    distinct = logits + torch.arange(5) * 1e-3 * torch.pi  # a tie has no class
    if any(len(set(row)) < 5 for row in distinct.tolist()):
        return
    assert torch.equal(margin(distinct, y) > 0, distinct.argmax(1) != y)


def test_margin_takes_distributions_by_their_most_likely_class() -> None:
    logits, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 2, 1])
    assert torch.equal(margin(logits, smooth(y, 5, 0.6)), margin(logits, y))
    assert torch.equal(hard(smooth(y, 5, 0.6)), y)
    assert hard(y) is y


@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize("mass", [0.5, 0.6, 0.8, 0.999])
def test_smooth_labels_sum_to_one_with_the_mass_on_the_true_class(mass: float, classes: int) -> None:
    y = torch.tensor([0, 1, classes - 1, 1])
    target = smooth(y, classes, mass)
    torch.testing.assert_close(target.sum(1), torch.ones(4))
    torch.testing.assert_close(target[range(4), y], torch.full((4,), mass))
    others = target.scatter(1, y[:, None], torch.nan).flatten()
    torch.testing.assert_close(others[~others.isnan()], torch.full((4 * (classes - 1),), (1 - mass) / (classes - 1)))


@pytest.mark.parametrize("s", [0.05, 0.1, 0.4])
def test_the_other_convention_of_label_smoothing_is_a_change_of_the_mass(s: float) -> None:
    """torch's label_smoothing = s is mass = 1 - s (classes - 1) / classes, as the docstring says."""
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6)
    ours = cross_entropy(logits, smooth(y, 10, 1 - s * 9 / 10)).mean()
    torch.testing.assert_close(ours, torch.nn.CrossEntropyLoss(label_smoothing=s)(logits, y))


def test_accuracy_is_the_share_of_correct_examples() -> None:
    logits = torch.eye(4)
    assert accuracy(logits, torch.tensor([0, 1, 0, 0])) == 0.5
    assert accuracy(logits, smooth(torch.tensor([0, 1, 2, 0]), 4, 0.6)) == 0.75
    assert accuracy(logits, torch.tensor([3, 2, 1, 0])).shape == ()


def test_dlr_is_the_margin_over_the_spread_of_the_top_three() -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0], [0.0, 3.0, 5.0, 4.0]])
    # -(4 - 2) / (4 - 1), and for a wrong prediction -(3 - 5) / (5 - 3)
    torch.testing.assert_close(dlr(logits, torch.tensor([0, 1])), torch.tensor([-2 / 3, 1.0]))
    assert torch.equal(dlr(7 * logits + 3, torch.tensor([0, 1])), dlr(logits, torch.tensor([0, 1])))
    two = torch.tensor([[1.0, 4.0]])
    assert torch.equal(dlr(two, torch.tensor([1])), margin(two, torch.tensor([1])))


def test_targeted_dlr_is_the_lead_over_the_target_over_the_spread_of_the_top_four() -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0]])
    goal = torch.tensor([[0, 3]])
    torch.testing.assert_close(targeted_dlr(logits, goal), torch.tensor([-4 / (4 - 0.5)]))
    torch.testing.assert_close(targeted_dlr(logits[:, :3], torch.tensor([[0, 1]])), torch.tensor([-3.0]))
    torch.testing.assert_close(targeted_dlr(logits[:, :2], torch.tensor([[0, 1]])), torch.tensor([-3.0]))


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_every_target_pulls(classes: int) -> None:
    """Also the lowest of three: divided by the distance to the third logit its lead would be constant."""
    logits = torch.linspace(2, -1, classes)[None].requires_grad_()
    for target in range(1, classes):
        loss = targeted_dlr(logits, torch.tensor([[0, target]]))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert gradient[0, target] > 0.05
