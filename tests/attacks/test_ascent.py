"""The one primitive under every PGD."""

import pytest
import torch
from torch import Tensor, nn

from methods import reference
from methods.reference import Plain
from regmix.attacks import ascend
from regmix.objectives import margin
from regmix.threats import L2, Linf

LABELS = torch.tensor([0, 2, 3, 1, 2])
HARD = reference.smoothed(LABELS, 1.0)


def a_start(x: Tensor) -> Tensor:
    """Far outside of any set."""
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype) * 2 - 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("target", [LABELS, reference.smoothed(LABELS, 0.7)], ids=["labels", "probabilities"])
def test_it_climbs_as_its_formula_says(target: Tensor, steps: int, norm: str) -> None:
    net, x = reference.tiny_net(), reference.images(5)
    plain, probabilities = Plain(net), HARD if target.ndim == 1 else target
    expected, first = reference.climb(
        plain,
        x,
        a_start(x),
        lambda z: reference.cross_entropy(z, probabilities),
        steps=steps,
        step=0.03,
        eps=0.2,
        norm=norm,
    )
    threat = {"linf": Linf, "l2": L2}[norm](eps=0.2)
    ascent = ascend(net, x, target, threat, start=a_start(x), steps=steps, step_size=0.03)
    torch.testing.assert_close(ascent.delta, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(ascent.first_logits, first.detach(), rtol=1e-12, atol=1e-13)
    assert not ascent.delta.requires_grad


def test_the_objective_decides_what_is_climbed() -> None:
    net, x = reference.tiny_net(), reference.images(5)
    expected, _ = reference.climb(
        Plain(net),
        x,
        torch.zeros_like(x),
        lambda z: reference.margin(z, LABELS),
        steps=2,
        step=0.03,
        eps=0.2,
        norm="l2",
    )
    ascent = ascend(net, x, LABELS, L2(eps=0.2), start=torch.zeros_like(x), steps=2, step_size=0.03, objective=margin)
    torch.testing.assert_close(ascent.delta, expected, rtol=0, atol=1e-13)


def test_the_gradient_is_that_of_the_last_step_per_example() -> None:
    """Not divided by the size of the batch, since the objective is summed over it."""
    net, x, start = reference.tiny_net().eval(), reference.images(5), a_start(reference.images(5)) * 0.1
    gradient = ascend(net, x, LABELS, Linf(eps=0.1), start=start, steps=1, step_size=0.1).gradient
    alone = [
        ascend(
            net, x[i : i + 1], LABELS[i : i + 1], Linf(eps=0.1), start=start[i : i + 1], steps=1, step_size=0.1
        ).gradient
        for i in range(5)
    ]
    torch.testing.assert_close(gradient, torch.cat(alone), rtol=1e-10, atol=1e-15)
    one = ascend(net, x, LABELS, Linf(eps=0.1), start=start, steps=1, step_size=0.1)
    two = ascend(net, x, LABELS, Linf(eps=0.1), start=start, steps=2, step_size=0.1)
    again = ascend(net, x, LABELS, Linf(eps=0.1), start=one.delta, steps=1, step_size=0.1)
    assert torch.equal(two.gradient, again.gradient)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_kept_logits_carry_the_gradient_of_the_first_forward_pass(steps: int) -> None:
    net, x = reference.tiny_net(), reference.images(5)
    start = a_start(x) * 0.1
    plain = Plain(net)
    expected = plain.gradient((plain(x + start) ** 2).sum())
    ascent = ascend(net, x, LABELS, Linf(eps=0.1), start=start, steps=steps, step_size=0.1, keep_graph=True)
    ascent.first_logits.square().sum().backward()
    assert reference.relative_error(reference.gradient_of(net), expected) < 1e-10
    without = ascend(net, x, LABELS, Linf(eps=0.1), start=start, steps=steps, step_size=0.1)
    assert not without.first_logits.requires_grad


@pytest.mark.parametrize("keep_graph", [True, False])
def test_it_computes_no_parameter_gradient_and_no_more_forward_passes_than_steps(keep_graph: bool) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.forwards = reference.tiny_net(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.forwards += 1
            return self.net(x)

    model, x = Counting(), reference.images(5)
    ascend(model, x, LABELS, Linf(), start=torch.zeros_like(x), steps=3, step_size=0.1, keep_graph=keep_graph)
    assert model.forwards == 3
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_does_not_touch_what_it_is_given() -> None:
    x = reference.images(5)
    start = a_start(x)
    ascend(reference.tiny_net(), x, LABELS, Linf(), start=start, steps=2, step_size=0.1, keep_graph=True)
    assert torch.equal(x, reference.images(5))
    assert torch.equal(start, a_start(x))
    assert not start.requires_grad
    assert not x.requires_grad


def test_no_steps_are_a_mistake() -> None:
    x = reference.images(5)
    with pytest.raises(AssertionError, match="at least one step"):
        ascend(reference.tiny_net(), x, LABELS, Linf(), start=torch.zeros_like(x), steps=0, step_size=0.1)
