"""APGD: rows are independent, and few classes are enough."""

import pytest
import torch
from torch import nn

from regmix.attacks import Apgd, Ensemble, Fab, Square
from regmix.attacks.base import likeliest_wrong
from regmix.threats import L2, Linf


def a_net(classes: int = 5) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, classes)).double()


def some_images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("attack", [Apgd("ce", steps=30), Apgd("dlr", steps=30), Apgd(targets=3, steps=30), Fab(3, 30)])
def test_a_row_fares_as_it_would_alone(attack, norm, monkeypatch) -> None:
    """Rows leave when they are broken; those that stay must not notice."""
    monkeypatch.setattr(norm, "uniform", lambda self, x, generator=None: self.eps * (1000 * x).sin())
    net, x = a_net(), some_images()
    with torch.no_grad():
        y = net(x).argmax(1)
    threat = norm(0.06 if norm is Linf else 0.35)
    together = attack(net, x, y, threat)
    with torch.no_grad():
        broken = net(x + together).argmax(1) != y
    assert broken.any(), "the test needs rows that leave"
    assert not broken.all(), "the test needs rows that stay"
    for row in range(len(x)):
        alone = attack(net, x[row : row + 1], y[row : row + 1], threat)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-6, atol=1e-9)


def test_more_steps_and_more_targets_break_no_less() -> None:
    net, x = a_net(), some_images(64)
    with torch.no_grad():
        y = net(x).argmax(1)

    def broken(attack) -> int:
        with torch.no_grad():
            return int((net(x + attack(net, x, y, Linf(0.05))).argmax(1) != y).sum())

    assert broken(Apgd(targets=4, steps=50)) >= broken(Apgd(targets=1, steps=50)) >= 1
    assert broken(Apgd("ce", steps=50, restarts=3)) >= broken(Apgd("ce", steps=50))


@pytest.mark.parametrize("classes", [2, 3, 4, 12])
def test_any_number_of_classes_will_do(classes: int) -> None:
    net, x = a_net(classes), some_images(16)
    with torch.no_grad():
        y = net(x).argmax(1)
    short = Ensemble(
        (("apgd-ce", Apgd(steps=5)), ("apgd-dlr", Apgd("dlr", steps=5)), ("apgd-t", Apgd(targets=9, steps=5)),
         ("fab-t", Fab(steps=5)), ("square", Square(5)))
    )  # fmt: skip
    delta = short(net, x, y, Linf(0.2))
    assert delta.isfinite().all()
    assert (net(x + delta).argmax(1) != y).any()
    assert likeliest_wrong(net(x), y, 9).shape == (16, min(9, classes - 1))


def test_the_targets_are_the_wrong_classes_from_the_likeliest_on() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 6.0, 7.0]])
    y = torch.tensor([0, 2])
    assert likeliest_wrong(logits, y, 9).tolist() == [[2, 1, 3], [3, 1, 0]]
    assert likeliest_wrong(logits, y, 2).tolist() == [[2, 1], [3, 1]]


def test_an_ensemble_breaks_what_any_of_its_stages_breaks_and_asks_later_ones_only_about_the_rest() -> None:
    net, x = a_net(), some_images(40)
    with torch.no_grad():
        y = net(x).argmax(1)
    asked = []

    class Counted:
        def __init__(self, attack) -> None:
            self.attack = attack

        def __call__(self, model, x, y, threat):
            asked.append(len(x))
            return self.attack(model, x, y, threat)

    first, second = Apgd(steps=3), Fab(steps=20)
    delta = Ensemble((("a", Counted(first)), ("b", Counted(second))))(net, x, y, Linf(0.05))
    with torch.no_grad():
        by_first = net(x + first(net, x, y, Linf(0.05))).argmax(1) != y
        by_both = net(x + delta).argmax(1) != y
    assert asked == [40, 40 - int(by_first.sum())]
    assert (by_both | ~by_first).all()
    assert Linf(0.05).norm(delta).max() <= 0.05 * (1 + 1e-6)
