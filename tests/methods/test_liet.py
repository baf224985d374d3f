"""LIET against its formula, in float64, step after step."""

import math

import pytest
import torch
from torch import Tensor

from methods import reference
from methods.reference import CLASSES, SHAPE, Plain
from regmix.methods import Setup
from regmix.methods.liet import Liet
from regmix.threats import L2, Linf
from regmix.types import Batch, Clock

LABELS = torch.tensor([0, 2, 3, 1, 2])
EPOCHS, STEPS, REFRESH, LAM, MASS = 3, 4, 3, 100.0, 0.4


def class_perturbations(plain: Plain, eps: float, norm: str, target: Tensor) -> Tensor:
    grey = torch.full((CLASSES, *SHAPE), 0.5, dtype=torch.float64, requires_grad=True)
    gradient = reference.input_gradient(plain(grey, False), grey, lambda z: reference.cross_entropy(z, target))
    return eps * reference.direction(gradient, norm)


def random_labels(draw: Tensor, labels: Tensor = LABELS) -> Tensor:
    rows = []
    for weights, label in zip(draw.tolist(), labels.tolist(), strict=True):
        rest = sum(weight for c, weight in enumerate(weights) if c != label)
        rows.append([MASS if c == label else (1 - MASS) * weight / rest for c, weight in enumerate(weights)])
    return torch.tensor(rows, dtype=torch.float64)


def jensen_shannon(z_p: Tensor, z_q: Tensor) -> Tensor:
    p, q = reference.softmax(z_p), reference.softmax(z_q)
    m = (p + q) / 2
    return ((p * torch.log(p / m)).sum(1) + (q * torch.log(q / m)).sum(1)) / 2


def clip(images: Tensor) -> Tensor:
    return torch.where(images < 0, 0.0, torch.where(images > 1, 1.0, images))


@pytest.mark.parametrize("attack_labels", ["hard", "soft"])
@pytest.mark.parametrize("reduction", ["element", "example"])
@pytest.mark.parametrize(
    ("norm", "eps", "noise", "projected"), [("linf", 8 / 255, 1, True), ("linf", 0.1, 2, False), ("l2", 0.4, 1, True)]
)
def test_it_follows_the_formula_step_after_step(
    norm: str,
    eps: float,
    noise: float,
    projected: bool,
    reduction: str,
    attack_labels: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threat = {"linf": Linf, "l2": L2}[norm](eps=eps)
    method = Liet(lam=LAM, mass=MASS, refresh=REFRESH, reduction=reduction, attack_labels=attack_labels)
    memory = method.memory(Setup(images=9, classes=CLASSES, shape=SHAPE, threat=threat))
    net = reference.tiny_net(1)
    plain, signs = Plain(net), set()
    draws = [threat.uniform(reference.images(5), torch.Generator().manual_seed(step)) for step in range(EPOCHS * STEPS)]
    for step in range(EPOCHS * STEPS):
        x, uniform = reference.images(5, seed=step), draws[step]
        monkeypatch.setattr(type(threat), "uniform", lambda self, x, drawn=uniform: drawn)
        # The same numbers, in the order in which the method draws them.
        torch.manual_seed(step)
        attacked = reference.smoothed(LABELS, 1.0)
        if step % STEPS % REFRESH == 0:  # counted within an epoch
            climbed = reference.smoothed(torch.arange(CLASSES), 1.0)
            if attack_labels == "soft":
                climbed = random_labels(torch.rand(CLASSES, CLASSES, dtype=torch.float64), torch.arange(CLASSES))
            kept = class_perturbations(plain, eps, norm, climbed)
        share = 0.1 + 0.4 * torch.rand((), dtype=torch.float64)
        noisy = torch.rand(5, *SHAPE, dtype=torch.float64) < share
        sign = -1 if torch.rand(()) < 0.5 else 1
        signs.add(sign)
        if attack_labels == "soft":
            attacked = random_labels(torch.rand(5, CLASSES, dtype=torch.float64))
        target = random_labels(torch.rand(5, CLASSES, dtype=torch.float64))
        start = clip(x + sign * torch.where(noisy, noise * uniform, kept[LABELS]))
        at = start.clone().requires_grad_()
        first = plain(at)
        gradient = reference.input_gradient(first, at, lambda z, t=attacked: reference.cross_entropy(z, t))
        end = start + eps * reference.direction(gradient, norm)
        end = x + reference.project(end - x, x, eps, norm) if projected else clip(end)
        last = plain(end)
        per_example = LAM * (step // STEPS + 1) / EPOCHS / (CLASSES if reduction == "element" else 1)
        expected = {
            "classify": reference.cross_entropy(last, target).sum() / 5,
            "diverge": per_example * jensen_shannon(first, last).sum() / 5,
        }

        torch.manual_seed(step)
        net.zero_grad()
        clock = Clock(step // STEPS, EPOCHS, step % STEPS, STEPS)
        losses = method(net, Batch(x, LABELS), threat, memory, clock)
        losses.total.backward()
        actual = {name: term.item() for name, term in losses.terms.items()}
        assert actual == pytest.approx({name: term.item() for name, term in expected.items()}, rel=1e-9)
        assert reference.relative_error(reference.gradient_of(net), plain.gradient(sum(expected.values()))) < 1e-9
        assert reference.relative_error(net[2].running_mean, plain.mean) < 1e-12
        assert int(net[2].num_batches_tracked) == plain.forwards
        torch.testing.assert_close(memory["delta"].gather(), kept, rtol=1e-10, atol=0)
        with torch.no_grad():
            for parameter, twin in zip(net.parameters(), plain.parameters, strict=True):
                parameter -= 0.1 * parameter.grad
                twin -= twin - parameter
    assert signs == {-1, 1}


@pytest.mark.parametrize("weights", ["uniform", "exponential"])
def test_the_random_labels_are_distributions_with_their_mass_on_the_true_class(weights: str) -> None:
    y = torch.arange(1000) % 10
    target = Liet(mass=0.7, label_weights=weights)._random_labels(y, 10, torch.float64)
    torch.testing.assert_close(target.sum(1), torch.ones(1000, dtype=torch.float64))
    assert (target[range(1000), y] == 0.7).all()
    others = target.scatter(1, y[:, None], math.nan).flatten()
    assert float(others.nanmean()) == pytest.approx(0.3 / 9)
    # Normalised exponential weights spread further than normalised uniform ones.
    deviation = float(others[~others.isnan()].std()) * 9 / 0.3
    assert (deviation > 0.8) == (weights == "exponential")


def test_its_defaults_are_those_of_the_public_code() -> None:
    assert (Liet().reduction, Liet().attack_labels, Liet().label_weights) == ("example", "soft", "uniform")


def test_two_classes_leave_the_rest_to_the_other_one() -> None:
    assert Liet()._random_labels(torch.tensor([0, 1]), 2, torch.float32).tolist() == [
        pytest.approx([0.4, 0.6]),
        pytest.approx([0.6, 0.4]),
    ]
