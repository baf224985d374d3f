"""APGD: rows are independent, and few classes are enough."""

import pytest
import torch
from torch import nn

from regmix.attacks import Apgd, Ensemble, Fab, Screened, Square, apgd, pairs
from regmix.attacks.base import likeliest_wrong
from regmix.draws import PerImage, restarted
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


def test_under_screening_the_exact_model_is_attacked_from_every_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start from which the rough model nearly broke a row is repeated; with a start of its own per restart."""
    starts: dict[str, list[tuple[float, ...]]] = {"rough": [], "exact": []}
    net, x = a_net().float(), some_images(40).float()
    with torch.no_grad():
        y = net(x).argmax(1)
    rough = Screened(lambda images: net(images) + 0, net, 0.01)
    climb = apgd.climb

    def spy(model, images, labels, target, threat, objective, steps, start, rows):
        starts["exact" if model is net else "rough"] += [tuple(row.tolist()) for row in start.flatten(1)]
        return climb(model, images, labels, target, threat, objective, steps, start, rows)

    monkeypatch.setattr(apgd, "climb", spy)
    monkeypatch.setattr(pairs, "CLOSE", 0.9)
    Apgd("ce", steps=20, restarts=4)(rough, x, y, Linf(0.02))
    assert len(starts["exact"]) >= 8, "the test needs rows near the boundary"
    assert len({*starts["exact"]}) == len(starts["exact"])
    assert {*starts["exact"]} <= {*starts["rough"]}


def test_another_seed_shares_no_start() -> None:
    """Nor does any of its restarts."""
    x = some_images(1).float()
    drawn = {
        float(PerImage(x, restarted(seed, restart)).numbers(1)) for seed in range(4) for restart in range(5)
    }  # fmt: skip
    assert len(drawn) == 20
