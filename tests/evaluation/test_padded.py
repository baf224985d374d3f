"""Batches of few sizes: the same verdicts."""

import pytest
import torch
from torch import Tensor, nn

from contracts.devices import DEVICE
from regmix.attacks import Apgd, Attack, Fab, Pgd, Square
from regmix.attacks.base import Screened
from regmix.evaluation import chunks
from regmix.evaluation.one_batch import attacked
from regmix.evaluation.padded import bucket, padded
from regmix.models import Answers
from regmix.threats import Linf
from regmix.types import Batch

pytestmark = pytest.mark.device


def test_buckets_are_few_and_hardly_larger_than_what_they_hold() -> None:
    sizes = [bucket(rows) for rows in range(1, 513)]
    assert all(rows <= size < rows + max(8, rows / 8) for rows, size in enumerate(sizes, 1))
    assert all(size < rows * 9 / 8 for rows, size in enumerate(sizes, 1) if rows > 8)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 9 + 8 * 5
    assert all(bucket(size) == size for size in sizes)


class Seen(nn.Module):
    """A small network that notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
        self.to(DEVICE).eval()
        self.sizes: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.add(len(x))
        return self.body(x)


def images(count: int = 19) -> Tensor:
    return torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1)).to(DEVICE)


@pytest.mark.parametrize("attack", [Pgd(5), Apgd("ce", steps=10), Apgd(targets=3, steps=10), Fab(2, 10), Square(60)])
def test_an_attack_breaks_the_same_images(attack: Attack) -> None:
    model, x, threat = Seen(), images(), Linf(0.06)
    with torch.no_grad():
        y = model(x).argmax(1)
    plain = attacked(model, attack, x, y, threat)
    model.sizes.clear()
    screen = padded(model)
    assert torch.equal(attacked(model, attack, x, y, threat, screen=screen).broken, plain.broken)
    assert 0 < int(plain.broken.sum()) < len(x)
    assert model.sizes - {len(x)} <= {bucket(rows) for rows in range(1, 100)}  # the verdict asks about all rows


def test_logits_and_gradients_are_those_of_the_rows() -> None:
    model, x = Seen(), images(13).requires_grad_()
    one, other = model(x), padded(model)(x)
    torch.testing.assert_close(other, one)
    gradients = (torch.autograd.grad(z.square().sum(), x)[0] for z in (one, other))
    torch.testing.assert_close(*gradients)
    both = padded(Screened(model, model, 0.5))
    assert isinstance(both, Screened)
    assert both.slack == 0.5
    model.sizes.clear()
    both.exact(images(17))
    assert model.sizes == {18}


def test_only_where_sizes_matter_are_batches_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU more rows cost more time."""
    asked = []
    monkeypatch.setattr(chunks, "padded", lambda model: asked.append(model) or model)
    mine = chunks.Chunks(Seen(), Pgd(1), Linf(0.1), "pgd", None, print)
    for counts in (True, False):
        monkeypatch.setattr(chunks, "waits_for_nothing", lambda values, counts=counts: counts)
        mine.attack(Batch(images(3), torch.zeros(3, dtype=torch.long, device=DEVICE)), [0, 1, 2])
        assert len(asked) == (0 if counts else 1)


def test_a_black_box_is_not_asked_about_rows_that_are_added() -> None:
    box = Answers(lambda x: torch.zeros(len(x), 3), 3, b"")
    padded(box)(images(13))
    assert box.queries == 13
