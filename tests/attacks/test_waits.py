"""How often a step of an attack waits for a value from the device."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from regmix.attacks import Apgd, Attack, Cw, Fab, MiFgsm, Pgd, Square, plane, rows
from regmix.runtime.recorder import _waits
from regmix.threats import L2, Linf


class Waits(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += _waits(operation, args)
        return operation(*args, **(kwargs or {}))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 5))


def waits(attack: Attack) -> int:
    """On images so far from the boundary that no row leaves."""
    model, x = linear(), torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    with Waits() as seen:
        attack(model, x, y, Linf(1e-5))
    return seen.count


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, plane):
        monkeypatch.setattr(module, "waits_for_nothing", lambda values: False)


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize(
    ("make", "most"),
    [
        (Pgd, 0),
        (Cw, 0),
        (MiFgsm, 0),
        (lambda steps: Apgd("ce", steps=steps), 1),  # whether a row leaves
        (lambda steps: Fab(1, steps), 3),  # that, and whether Newton's method is done
        (Square, 1),
    ],
    ids=["pgd", "cw", "mi_fgsm", "apgd", "fab", "square"],
)
def test_a_step_waits_no_more_than_it_must(make: Any, most: int) -> None:
    assert waits(make(30)) - waits(make(10)) <= 20 * most


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.3)], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", [Square(80), Fab(2, 15)], ids=["square", "fab"])
def test_without_waiting_the_same_images_break(attack: Attack, threat: Any, monkeypatch) -> None:
    model, x = linear(), torch.rand(12, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        y = model(x).argmax(1)
    usual = attack(model, x, y, threat)
    for module in (rows, plane):
        monkeypatch.setattr(module, "waits_for_nothing", lambda values: False)
    other = attack(model, x, y, threat)
    torch.testing.assert_close(other, usual, rtol=1e-5, atol=1e-6)
    assert 0 < int((model(x + other).argmax(1) != y).sum()) < len(x)
