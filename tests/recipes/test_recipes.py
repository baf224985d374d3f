"""The paper's recipes hold the published settings."""

import pytest
import torch
from torch.nn import functional as F

from regmix.config import Ema, GatedEma, OneCycle, Piecewise, from_json, to_json
from regmix.methods import FgsmPgk, RegMix
from regmix.models import PreActResNet, ResNet
from regmix.objectives import cross_entropy, smooth
from regmix.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_its_json(name: str) -> None:
    assert from_json(to_json(recipe(name))) == recipe(name)


def test_cifar10_regmix_is_the_papers_setting() -> None:
    experiment = recipe("cifar10-regmix")
    assert experiment.method == RegMix(alpha=50, beta=20, gamma=20)
    assert experiment.model == ResNet(depth=18, width=64)
    assert experiment.threat.eps == 8 / 255
    assert (experiment.epochs, experiment.batch_size) == (98, 128)
    assert (experiment.lr, experiment.momentum, experiment.weight_decay) == (0.1, 0.9, 5e-4)
    assert (experiment.pad, experiment.flip, experiment.normalise) == (4, True, False)


def test_cifar10_fgsm_pgk_is_the_published_setting() -> None:
    experiment = recipe("cifar10-fgsm-pgk")
    assert experiment.method == FgsmPgk(lam=5.6, mu=0.3, reset=10)
    assert experiment.schedule == Piecewise(milestones=(100, 105), decay=0.1)
    assert experiment.averaging == GatedEma(limit=0.999, threshold=0.82)
    assert (experiment.epochs, experiment.label_mass) == (110, 0.5)


def test_the_other_weights() -> None:
    cifar100 = recipe("cifar100-regmix").method
    assert (cifar100.alpha, cifar100.beta) == (1200, 700)
    assert recipe("tiny-imagenet-regmix").model == PreActResNet(depth=18, width=64)


@pytest.mark.parametrize(
    ("name", "classes", "validation"),
    [("fastat-cifar10", 10, 1000), ("fastat-cifar100", 100, 1000), ("fastat-tiny-imagenet", 200, 2000)],
)
def test_the_fastat_protocol(name: str, classes: int, validation: int) -> None:
    experiment = recipe(name)
    assert (experiment.epochs, experiment.batch_size, experiment.lr, experiment.weight_decay) == (100, 128, 0.1, 5e-4)
    assert (experiment.pad, experiment.flip, experiment.validation) == (4, True, validation)
    assert experiment.averaging == Ema(limit=0.9995)
    assert experiment.schedule == OneCycle()
    assert experiment.best_of == "either"
    # torch's label_smoothing=0.4 mixes the label with the uniform distribution over all classes.
    logits = torch.randn(6, classes, dtype=torch.float64)
    labels = torch.randint(classes, (6,))
    ours = cross_entropy(logits, smooth(labels, classes, experiment.label_mass).double()).mean()
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.4), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_every_milestone_is_reached(name: str) -> None:
    experiment = recipe(name)
    if isinstance(experiment.schedule, Piecewise):
        assert max(experiment.schedule.milestones) < experiment.epochs
