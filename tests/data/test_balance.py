"""Classes of unequal size: the expected counts, importances and gradients."""

from pathlib import Path

import pytest
import torch
from torch import nn

from contracts.finished import assert_same
from contracts.test_methods import METHODS, a_batch, a_clock, a_memory, a_model
from regmix.cli.entry import main
from regmix.config import Experiment
from regmix.data import Augmentations, ImageSet, Loader, Mixup
from regmix.data.balance import balanced_deck, class_importance
from regmix.methods import METHODS as KINDS
from regmix.methods import Method, Standard
from regmix.threats import Linf
from regmix.training.step import TrainStep
from regmix.types import Clock, UserError


@pytest.fixture
def unequal() -> ImageSet:
    """100 images of four classes of 50, 30, 15 and 5, and a class without images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (100, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 15 + [4] * 5)[torch.randperm(100, generator=generator)]
    return ImageSet(pixels, labels, tuple("abcde"))


def epochs(images: ImageSet, numbers: range, balance: str, **more: object) -> list:
    loader = Loader(images, 32, "cpu", pad=0, flip=False, seed=0, balance=balance, **more)
    return [batch for number in numbers for batch in loader.epoch(number)]


def test_sampling_shows_every_class_equally_often_in_every_pass(unequal: ImageSet) -> None:
    passes = [torch.cat([batch.y for batch in epochs(unequal, range(n, n + 1), "sampling")]) for n in range(8)]
    for labels in passes:
        assert labels.bincount(minlength=5).tolist() == [25, 25, 25, 0, 25]
    assert not torch.equal(passes[0], passes[1])


def test_sampling_shows_the_images_of_a_class_equally_often(unequal: ImageSet) -> None:
    index = torch.cat([batch.index for batch in epochs(unequal, range(1), "sampling")])
    counts = index.bincount(minlength=100)
    for label, expected in {0: {0, 1}, 1: {0, 1}, 2: {1, 2}, 4: {5}}.items():
        assert {*counts[unequal.labels == label].tolist()} == expected
    index = torch.cat([batch.index for batch in epochs(unequal, range(40), "sampling")])
    mean = index.bincount(minlength=100)[unequal.labels == 0].double().mean()
    assert mean == 20  # half of them in each of 40 passes
    assert index.bincount(minlength=100)[unequal.labels == 0].min() > 8


def test_what_cannot_be_divided_goes_to_classes_in_turn() -> None:
    labels = torch.tensor([0] * 9 + [1, 2])  # 11 places for three classes
    counts = torch.stack([labels[balanced_deck(labels, 0, number)].bincount() for number in range(60)])
    assert (counts.sum(1) == 11).all()
    assert {*counts.flatten().tolist()} == {3, 4}
    assert ((counts.double().mean(0) - 11 / 3).abs() < 0.2).all()


def test_batches_and_labels_of_a_sampled_pass_belong_together(unequal: ImageSet) -> None:
    for batch in epochs(unequal, range(2), "sampling"):
        assert torch.equal(batch.x, unequal.images[batch.index].float() / 255)
        assert torch.equal(batch.y, unequal.labels[batch.index])


def test_without_balance_nothing_is_weighted(unequal: ImageSet) -> None:
    assert all(batch.importance is None for batch in epochs(unequal, range(1), "none"))


def test_importances_have_mean_one_and_equal_sums_per_class(unequal: ImageSet) -> None:
    weights = class_importance(unequal.labels, 5)
    assert weights.tolist() == pytest.approx([0.5, 100 / 120, 100 / 60, 0, 5])
    importance = torch.cat([batch.importance for batch in epochs(unequal, range(1), "loss")])
    labels = torch.cat([batch.y for batch in epochs(unequal, range(1), "loss")])
    assert importance.mean().item() == pytest.approx(1)
    for label in (0, 1, 2, 4):
        assert importance[labels == label].sum().item() == pytest.approx(25)


def test_a_mixture_has_the_mixed_importance(unequal: ImageSet) -> None:
    weights = class_importance(unequal.labels, 5)
    for batch in epochs(unequal, range(1), "loss", augmentations=Augmentations(mix=Mixup())):
        assert torch.allclose(batch.importance, batch.soft @ weights)


def test_the_gradient_is_the_mean_of_the_classes_gradients(unequal: ImageSet) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).double()
    step = TrainStep(model, Standard(), Linf(0.1), 5, 1.0)
    (batch,) = Loader(unequal, 100, "cpu", pad=0, flip=False, seed=0, balance="loss").epoch(0)
    batch = batch._replace(x=batch.x.double(), importance=batch.importance.double())
    found = torch.autograd.grad(step(batch, None, Clock(0, 1, 0, 1)).total, [*model.parameters()])
    sums = [torch.zeros_like(part) for part in found]
    for label in (0, 1, 2, 4):
        own = batch.y == label
        loss = nn.functional.cross_entropy(model(batch.x[own]), batch.y[own])
        for part, gradient in zip(sums, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
            part += gradient / 4
    for part, expected in zip(found, sums, strict=True):
        assert torch.allclose(part, expected, atol=1e-7)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_weighs_its_classification_loss(method: Method) -> None:
    """The term is linear in the importances, and what a method adds to it is not weighted."""

    def terms(importance: torch.Tensor | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        model, threat = a_model(torch.float64), Linf(0.1)
        batch = a_batch(dtype=torch.float64)._replace(importance=importance)
        return method(model, batch, threat, a_memory(method, threat), a_clock()).terms

    plain, ones = terms(None), terms(torch.ones(4, dtype=torch.float64))
    single = [terms(row) for row in torch.eye(4, dtype=torch.float64)]
    weights = torch.tensor([0.5, 3.0, 0.0, 1.5], dtype=torch.float64)
    weighted = terms(weights)
    for name, value in plain.items():
        assert torch.allclose(ones[name], value)
        if name in ("classify", "boost"):
            assert len({round(row[name].item(), 9) for row in single}) == 4
            expected = sum(w * row[name] for w, row in zip(weights, single, strict=True))
            assert torch.allclose(weighted[name], expected)
        else:
            assert torch.allclose(weighted[name], value)


@pytest.mark.parametrize("name", ["fgsm_ep", "atas"])
def test_repeated_images_are_refused_where_each_is_remembered(name: str) -> None:
    with pytest.raises(UserError, match="--balance sampling repeats images; use --balance loss"):
        Experiment(method=KINDS[name](), balance="sampling")
    Experiment(method=KINDS[name](), balance="loss")


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["loss", "sampling"])
def test_resuming_is_exact(balance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny = "--train-examples 61 --validation 50 --epochs 3 --batch-size 20 --model.width 4 --averaging none"
    command = f"train digits-regmix --balance {balance} {tiny}"
    assert main(f"{command} --out {whole}".split()) == 0
    real = Loader.epoch

    def interrupted(self, number, first=0):
        for step, batch in enumerate(real(self, number, first)):
            if (number, step) == (1, 2):
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "epoch", interrupted)
        assert main(f"{command} --out {broken}".split()) == 130
    assert main(["train", "--resume", str(broken)]) == 0
    assert_same(whole, broken)
