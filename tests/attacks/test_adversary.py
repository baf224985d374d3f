"""An attack as a call (images, labels) -> adversarial images, for models from elsewhere."""

import pytest
import torch
from torch import nn

from regmix import L2, Linf
from regmix.attacks import Adversary, CwL2, Pgd
from regmix.types import UserError


class Linear(nn.Module):
    """Two logits, w x and -w x: the worst perturbation of class 0 is -eps sign(w)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x * self.w).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


X, Y = torch.full((4, 3, 2, 2), 0.5), torch.tensor([0, 1, 0, 1])


def test_a_linear_model_meets_its_worst_perturbation() -> None:
    model = Linear()
    sign = torch.where(Y == 0, -1.0, 1.0).reshape(4, 1, 1, 1)
    expected = X + 0.1 * sign * model.w.detach().sign()
    for name in ("fgsm", "pgd-20"):
        torch.testing.assert_close(Adversary(model, name, Linf(0.1))(X, Y), expected, msg=name)
    unit = model.w.detach() / model.w.detach().norm()
    torch.testing.assert_close(Adversary(model, Pgd(steps=80), L2(0.3))(X, Y), X + 0.3 * sign * unit)


def test_images_stay_in_their_range_and_in_the_ball() -> None:
    x = torch.rand(4, 3, 2, 2)
    found = Adversary(Linear(), "pgd-5", Linf(0.4))(x, Y)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found - x).abs().max() <= 0.4 + 1e-6


def test_the_model_and_the_images_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), Linear())
    model.train()
    x = X.clone().requires_grad_()
    with torch.no_grad():  # the callers' mode does not matter
        found = Adversary(model, "pgd-3", Linf(0.1))(x, Y)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert int(model[0].num_batches_tracked) == 0  # type: ignore[arg-type]
    assert not found.requires_grad
    assert x.grad is None
    assert torch.equal(x, X)


def test_it_attacks_where_other_trainers_validate() -> None:
    """In inference mode, which knows no gradients."""
    expected = Adversary(Linear(), "pgd-3", Linf(0.1))(X, Y)
    model = Linear()
    with torch.inference_mode():
        assert torch.equal(Adversary(model, "pgd-3", Linf(0.1))(X.clone(), Y.clone()), expected)


def test_a_function_is_a_model_too() -> None:
    model = Linear()
    assert torch.equal(
        Adversary(lambda x: model(x), "pgd-3", Linf(0.1))(X, Y), Adversary(model, "pgd-3", Linf(0.1))(X, Y)
    )


class InPlace(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.sub_(0.5))


def test_mistakes_are_said_in_one_line() -> None:
    with pytest.raises(UserError, match="unknown attack 'pgd'"):
        Adversary(Linear(), "pgd", Linf(0.1))
    with pytest.raises(UserError, match="'clean' is no attack"):
        Adversary(Linear(), "clean", Linf(0.1))
    with pytest.raises(UserError, match="L2"):
        Adversary(Linear(), CwL2(), Linf(0.1))
    with pytest.raises(UserError, match="they must lie in \\[0, 1\\]"):
        Adversary(Linear(), "fgsm", Linf(0.1))(255 * X, Y)
    with pytest.raises(UserError, match="in place"):
        Adversary(InPlace(), lambda model, x, y, threat: 0 * model(x).sum() + torch.zeros_like(x), Linf(0.1))(X, Y)
    with pytest.raises(UserError, match="labels reach 2"):
        Adversary(Linear(), "fgsm", Linf(0.1))(X, Y + 1)
    with pytest.raises(UserError, match="not finite"):
        Adversary(Linear(), lambda model, x, y, threat: torch.full_like(x, float("nan")), Linf(0.1))(X, Y)
