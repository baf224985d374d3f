"""Constraint relaxation against a plain loop, and what it shows the model."""

import pytest
import torch
from torch import Tensor, nn

from regmix.attacks import Relaxation
from regmix.draws import PerImage, uniform
from regmix.threats import L2, Linf


def a_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 5)).double().requires_grad_(False)


def some_images(count: int) -> Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def by_hand(net: nn.Module, x: Tensor, y: int, t: int, eps: float, attack: Relaxation) -> tuple[Tensor, list[Tensor]]:
    """The attack on one image and one target under L-inf: the best perturbation, and all points seen."""
    draws = PerImage(x, attack.seed, torch.tensor([t]))
    low, high = -x, 1 - x

    def noise(radius: float) -> Tensor:
        return uniform(x, draws, -1, 1) * radius

    d = noise(eps).clamp(low, high)
    best, top, seen = d, -float("inf"), []
    for cycle in range(1, attack.cycles + 1):
        s = max(2.0**-cycle, attack.least)
        for step in range(attack.steps):
            at = (x + d).requires_grad_()
            z = net(at)[0]
            value = z[t] - z[y]
            (g,) = torch.autograd.grad(value, at)
            seen.append(d)
            if d.abs().max() <= eps and value.detach().item() > top:
                best, top = d, value.detach().item()
            radius = eps * (1 + s) if step < attack.loose else eps
            d = (d + eps * s * g.sign()).clamp(-radius, radius).clamp(low, high)
        inside = d.clamp(-eps * (1 - s), eps * (1 - s)).clamp(low, high)
        d = (inside + noise(eps * s)).clamp(-eps, eps).clamp(low, high)
    with torch.no_grad():
        z = net(x + d)[0]
    seen.append(d)
    return (d if z[t] - z[y] > top else best), seen


def test_it_is_the_plain_loop_of_one_target() -> None:
    net, x, eps = a_net(), some_images(1), 0.005
    y = int(net(x).argmax())
    t = int(net(x).topk(2).indices[0, 1])
    attack = Relaxation(targets=1, cycles=6, steps=7, loose=3, seed=4)
    best, seen = by_hand(net, x, y, t, eps, attack)
    points: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        points.append(images.detach() - x)
        return net(images)

    delta = attack(model, x, torch.tensor([y]), Linf(eps))
    assert int(net(x + delta).argmax()) == y, "the loop by hand does not stop at a broken image"
    torch.testing.assert_close(torch.stack(points[1:]), torch.stack(seen), rtol=0, atol=1e-12)
    torch.testing.assert_close(delta, best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.2)])
def test_it_looks_outside_the_ball_and_never_returns_a_point_there(threat: Linf | L2) -> None:
    """On a plane every loose phase ends at the border of its ball: eps (1 + s) away, s = 1/2, 1/4, 1/8."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([50.0, 0.0]))
    x, lengths = some_images(2) * 0.2 + 0.4, []

    def watched(images: Tensor) -> Tensor:
        lengths.append(float(threat.norm(images.detach() - x).max()) / threat.eps)
        return model(images)

    delta = Relaxation(targets=1, cycles=3, steps=30, loose=15)(watched, x, torch.tensor([0, 0]), threat)
    begin = lengths[1:]  # the first pass is the clean one
    assert [begin[30 * cycle + 15] for cycle in range(3)] == pytest.approx([1.5, 1.25, 1.125], rel=1e-6)
    exact = [begin[30 * cycle + step] for cycle in range(3) for step in (0, *range(16, 30))]
    assert max(exact) <= 1 + 1e-9
    assert threat.norm(delta).max() <= threat.eps * (1 + 1e-9)


def test_a_point_that_is_misclassified_only_outside_the_ball_does_not_count() -> None:
    """The boundary lies at 1.3 eps, which the first loose phase crosses."""
    w = torch.ones(48, dtype=torch.float64)
    threat, x = Linf(0.1), torch.full((3, 3, 4, 4), 0.5, dtype=torch.float64)

    def model(images: Tensor) -> Tensor:
        lead = 1.3 * threat.eps * 48 - ((images - 0.5).flatten(1) * w).sum(1)
        return torch.stack([lead, -lead], 1)

    y = torch.zeros(3, dtype=torch.long)
    delta = Relaxation()(model, x, y, threat)
    assert threat.norm(delta).max() <= threat.eps + 1e-12
    assert (model(x + delta).argmax(1) == 0).all()
    assert (model(x + Relaxation()(model, x, y, Linf(0.1301))).argmax(1) == 1).all()
