"""RegMix's terms added to other methods, against their formulas, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, Given, Plain
from regmix.methods import FgsmAt, FgsmRs, Method, Mutual, NFgsm, PgdAt, RegMix, Standard
from regmix.threats import L2, Linf
from regmix.types import Batch

LABELS = torch.tensor([0, 2, 3, 1, 2])
RADIUS = {"linf": 0.1, "l2": 0.4}
THREAT = {"linf": Linf, "l2": L2}
# How the terms are asked for, and alpha, beta and gamma per example.
WEIGHTS = {
    "given": (Mutual(alpha=7, beta=2, gamma=3), (7 / CLASSES, 2 / CLASSES, 3 / CLASSES)),
    "auto": (Mutual(weights="auto"), (5, 2, 2)),
}

Attack = Callable[[Plain, Tensor, Tensor, float, str], tuple[Tensor, Tensor]]
"""(model, images, uniform draw, eps, norm) to the final perturbation and the logits where the attack began."""


def hard_loss(z: Tensor) -> Tensor:
    return reference.cross_entropy(z, reference.smoothed(LABELS, 1.0))


def climb(plain: Plain, x: Tensor, start: Tensor, eps: float, norm: str, step: float, steps: int = 1):
    return reference.climb(plain, x, start, hard_loss, steps=steps, step=step * eps, eps=eps, norm=norm)


def noisy(plain: Plain, x: Tensor, drawn: Tensor, eps: float, norm: str) -> tuple[Tensor, Tensor]:
    at = (x + 2 * drawn).clamp(0, 1).requires_grad_()
    first = plain(at)
    (gradient,) = torch.autograd.grad(hard_loss(first).sum(), at, retain_graph=True)
    return (at.detach() + eps * reference.direction(gradient, norm)).clamp(0, 1) - x, first


CASES: dict[str, tuple[Callable[[Mutual], Method], Attack]] = {
    "fgsm_at": (
        lambda mutual: FgsmAt(mutual=mutual),
        lambda plain, x, drawn, eps, norm: climb(plain, x, torch.zeros_like(x), eps, norm, 1.0),
    ),
    "fgsm_rs": (
        lambda mutual: FgsmRs(mutual=mutual),
        lambda plain, x, drawn, eps, norm: climb(plain, x, reference.project(drawn, x, eps, norm), eps, norm, 1.25),
    ),
    "n_fgsm": (lambda mutual: NFgsm(mutual=mutual), noisy),
    "pgd_at": (
        lambda mutual: PgdAt(steps=4, mutual=mutual),
        lambda plain, x, drawn, eps, norm: climb(
            plain, x, reference.project(drawn, x, eps, norm), eps, norm, 0.25, steps=4
        ),
    ),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("case", CASES)
def test_the_first_last_and_clean_outputs_of_an_attack_are_compared(case: str, weights: str, norm: str) -> None:
    (make, attack), (mutual, (alpha, beta, gamma)) = CASES[case], WEIGHTS[weights]
    net, x, eps, target = reference.tiny_net(), reference.images(5), RADIUS[norm], reference.smoothed(LABELS, 0.6)
    plain, threat = Plain(net), THREAT[norm](eps=eps)
    drawn = threat.uniform(x, torch.Generator().manual_seed(7))
    delta, first = attack(plain, x, drawn, eps, norm)
    last, clean = plain(x + delta), plain(x)
    expected = {
        "classify": reference.cross_entropy(last, target).sum() / 5,
        "mutual_main": alpha * reference.kl(last, first).sum() / 5,
        "mutual_aux": beta * reference.kl(first, last).sum() / 5,
        "generalise": gamma * reference.kl(clean, last).sum() / 5,
    }

    losses = make(mutual)(net, Batch(x, target, torch.arange(5)), Given(threat, uniform=drawn))
    losses.total.backward()
    assert [*losses.terms] == [*expected]
    for name, value in expected.items():
        assert losses.terms[name].item() == pytest.approx(value.item(), rel=1e-10)
    assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(expected.values()))) < 1e-10
    assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
    assert int(net[2].num_batches_tracked) == plain.forwards


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_automatic_weights_are_those_of_ten_classes(classes: int) -> None:
    assert Mutual(weights="auto").per_example(classes) == Mutual(alpha=50, beta=20, gamma=20).per_example(10)


def test_a_method_has_its_weights_itself_or_in_a_part() -> None:
    own, part = RegMix(), Mutual(alpha=3)
    assert Mutual.of(own) is own
    assert Mutual.of(PgdAt(mutual=part)) is part
    assert Mutual.of(Standard()) is None
