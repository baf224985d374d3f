"""MALT's order of targets, on models whose distances are known."""

import numpy as np
import pytest
import torch
from torch import nn

from regmix.attacks import Apgd, Malt
from regmix.attacks.malt import linear_distances
from regmix.threats import L1, L2, Linf


def a_linear_model(classes: int = 6) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).double()


@pytest.mark.parametrize(("threat", "dual"), [(Linf(), 1), (L2(), 2), (L1(), np.inf)])
def test_the_distance_of_a_class_is_that_to_its_hyperplane(threat: Linf | L2 | L1, dual: float) -> None:
    model = a_linear_model()
    x = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = model(x).detach().numpy()
    y = z.argmax(1)
    wrong = np.stack([[c for c in range(6) if c != label] for label in y])
    weight = model[1].weight.detach().numpy()
    expected = [
        [(z[i, y[i]] - z[i, t]) / np.linalg.norm(weight[t] - weight[y[i]], dual) for t in wrong[i]] for i in range(5)
    ]
    found = linear_distances(model, x, torch.from_numpy(y), torch.from_numpy(wrong), threat)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def a_model_whose_likeliest_wrong_class_is_far() -> nn.Sequential:
    """Class 1 has the second largest logit and a small slope; class 2 the third and a large one; two are far away."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, [0.1] * 4, [5.0] * 4, [0.0] * 4, [0.0] * 4]))
        model[1].bias.copy_(torch.tensor([1.0, 0.7, -10.0, -20.0, -21.0]))
    return model


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.4), L1(0.8)])
def test_the_nearest_class_comes_first_and_breaks_what_the_likeliest_does_not(threat: Linf | L2 | L1) -> None:
    """At x = 0.5: z = (1, 0.9, 0), and the boundaries lie at 0.1 / (0.1 * 4) and 1 / (5 * 4) under L-inf."""
    model, x = a_model_whose_likeliest_wrong_class_is_far(), torch.full((2, 1, 2, 2), 0.5).double()
    y = torch.tensor([0, 0])
    logits = model(x).detach()
    assert Apgd(targets=2).wrong(model, x, y, logits, threat).tolist() == [[1, 2]] * 2
    assert Malt(targets=2).wrong(model, x, y, logits, threat).tolist() == [[2, 1]] * 2
    assert Malt(targets=1).wrong(model, x, y, logits, threat).tolist() == [[2]] * 2
    # Only the likeliest classes are ordered at all.
    assert Malt(targets=2, candidates=1).wrong(model, x, y, logits, threat).tolist() == [[1]] * 2
    assert (model(x + Malt(targets=1, steps=20)(model, x, y, threat)).argmax(1) == 2).all()


def test_a_class_without_a_gradient_comes_last() -> None:
    model = a_model_whose_likeliest_wrong_class_is_far()
    with torch.no_grad():
        model[1].weight[1] = 0.0
    x, y = torch.full((1, 1, 2, 2), 0.5).double(), torch.tensor([0])
    assert linear_distances(model, x, y, torch.tensor([[1, 2]]), Linf()).tolist() == [[float("inf"), 0.05]]
    assert Malt().wrong(model, x, y, model(x).detach(), Linf()).tolist() == [[2, 1, 3, 4]]
