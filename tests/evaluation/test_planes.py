"""The loss on grids of planes, against models whose loss there is known."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.test_flatness import EPS, Logistic, images, labels
from regmix.evaluation import image_planes, weight_plane
from regmix.models import SmallCnn, build
from regmix.threats import L2, Linf
from regmix.types import UserError


@pytest.mark.parametrize("threat", [Linf(EPS), L2(0.15)])
def test_around_an_image_the_first_axis_is_the_steepest_direction(threat) -> None:
    w = torch.linspace(-1, 1.5, 36, dtype=torch.float64)
    x, y = images(), labels(6, 2)
    plane = image_planes(Logistic(w), x, y, threat, points=5, reach=1.5, batch_size=4)
    assert plane.loss.shape == (6, 5, 5)
    torch.testing.assert_close(plane.steps, torch.tensor([-1.5, -0.75, 0, 0.75, 1.5], dtype=torch.float64))
    side = (1 - 2 * y).double()  # +1 for class 0, whose logit is w . x
    slope = threat.eps * (w.abs().sum() if isinstance(threat, Linf) else w.norm())
    row = (x.flatten(1) @ w * side)[:, None] - plane.steps * slope  # the loss falls with the margin
    torch.testing.assert_close(plane.loss[:, 2], F.softplus(-row))
    # Along a random direction the margin moves less.
    margin = torch.log(torch.expm1(plane.loss))
    assert ((margin[:, 0, 2] - margin[:, 4, 2]).abs() < (margin[:, 2, 4] - margin[:, 2, 0])).all()


def test_images_of_the_plane_stay_within_their_range() -> None:
    class Range(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            assert x.min() >= 0
            assert x.max() <= 1
            return x.flatten(1)[:, :3] * self.w

    image_planes(Range(), torch.rand(4, 1, 2, 3).round(), labels(4), Linf(0.2), points=3)


def test_in_the_weights_directions_are_as_long_as_the_filters_and_leave_the_rest() -> None:
    """One linear layer with zero bias: the logits along a direction are those of the moved weights."""

    class Linear(nn.Module):
        seen: list[Tensor] = []  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.norm = nn.Linear(36, 3), nn.BatchNorm1d(3)
            self.layer.weight.data *= torch.tensor([[1.0], [2.0], [0.0]])

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(torch.cat([self.layer.weight.detach(), self.layer.bias.detach()[:, None]], 1))
            assert torch.equal(self.norm.weight, torch.ones(3))
            return self.norm(self.layer(x.flatten(1)))

    model, x, y = Linear(), images(dtype=torch.float32), labels()
    kept = copy.deepcopy(model.state_dict())
    plane = weight_plane(model, x, y, points=3, reach=0.5)
    corner, own = model.seen[-9], torch.cat([model.layer.weight, model.layer.bias[:, None]], 1).detach()
    for moved in (model.seen[-9], model.seen[-8], model.seen[-6], model.seen[-1]):
        assert torch.equal(moved[:, -1], own[:, -1])  # biases stay
    e, d = (model.seen[-8] - own)[:, :-1], (model.seen[-6] - own)[:, :-1]  # (-1/2, 0) and (0, -1/2)
    for direction in (d, e):
        torch.testing.assert_close(direction.norm(dim=1), 0.5 * own[:, :-1].norm(dim=1))
    assert abs(float(F.cosine_similarity(d[:2].flatten(), e[:2].flatten(), dim=0))) < 0.5
    torch.testing.assert_close((corner - own)[:, :-1], d + e)
    with torch.no_grad():
        torch.testing.assert_close(float(plane.loss[1, 1]), float(F.cross_entropy(model.eval()(x), y)))
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_the_plane_in_the_weights_depends_on_the_seed_and_not_on_batches() -> None:
    model, x, y = build(SmallCnn(width=2), 3, channels=1), images(dtype=torch.float32), labels()
    before = copy.deepcopy(model)
    one, split = (weight_plane(model, x, y, points=3, batch_size=size) for size in (6, 4))
    torch.testing.assert_close(one.loss, split.loss)
    assert not torch.equal(one.loss, weight_plane(model, x, y, seed=1, points=3).loss)
    assert one.loss[1, 1] == split.loss[1, 1] == weight_plane(model, x, y, seed=1, points=3).loss[1, 1]
    assert model.training
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("change", "said"), [({"points": 4}, "odd"), ({"reach": 0.0}, "positive")])
def test_wrong_grids_are_refused(change, said) -> None:
    model = Logistic(torch.ones(36, dtype=torch.float64))
    with pytest.raises(UserError, match=said):
        image_planes(model, images(), labels(6, 2), Linf(EPS), **change)
    with pytest.raises(UserError, match=said):
        weight_plane(model, images(), labels(6, 2), **change)
