"""A batch that is computed in parts gives the step of the whole batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from regmix.config import Ema, Experiment, GatedEma
from regmix.data import Digits, Loader, Mixup, load
from regmix.methods import METHODS, FgsmAt, FgsmPgk, Standard
from regmix.recipes import recipe
from regmix.runtime import devices
from regmix.training.accumulation import parts_of
from regmix.training.trainee import Trainee
from regmix.types import Batch, UserError


def without_batchnorm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(256, 10)).double()


def trained(model: nn.Module, parts: int, **changes: Any) -> Trainee:
    """Two epochs of two batches, of 12 and 11 images."""
    images = load(Digits(), "train").subset(torch.arange(23))
    experiment = replace(
        recipe("digits-regmix"), batch_size=12, accumulate=parts, epochs=2, precision="64", pad=1, flip=True, **changes
    )
    loader = Loader(
        images, 12, "cpu", pad=1, flip=True, seed=0, augmentations=experiment.augmentations, balance=experiment.balance
    )
    trainee = Trainee(devices.start("cpu", "64"), model, experiment, images, len(loader))
    for epoch in range(2):
        trainee.progress.epoch, trainee.progress.step = epoch, 0
        trainee.begin()
        for batch in loader.epoch(epoch):
            trainee.learn(batch._replace(x=batch.x.double()))
    return trainee


@pytest.mark.parametrize("parts", [2, 5, 12])
@pytest.mark.parametrize(
    "changes",
    [
        {"method": FgsmAt(), "clip_norm": 0.1, "balance": "loss"},
        {"method": FgsmAt(), "awp": 0.01, "label_mass": 0.8, "optimizer": "adamw", "lr": 0.01},
        {"method": Standard(), "mix": Mixup()},
    ],
)
def test_the_weights_are_those_of_the_whole_batch(parts: int, changes: dict[str, Any]) -> None:
    whole = trained(without_batchnorm(), 1, **changes)
    split = trained(without_batchnorm(), parts, **changes)
    for one, other in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)  # Fabric gives losses as float32
    assert split.tally.means() == pytest.approx(whole.tally.means(), rel=1e-5)


def test_each_image_finds_its_own_memory_and_batchnorm_sees_the_parts() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), without_batchnorm()).double()
    trainee = trained(model, 3, method=FgsmPgk(), averaging=Ema())
    assert int(model[0].num_batches_tracked) == 4 * 3 * 2  # two forward passes for each part of each step
    assert trainee.memory is not None
    assert trainee.memory["delta"].gather().abs().flatten(1).amax(1).gt(0).all()


def test_parts_share_rows_and_weight() -> None:
    batch = Batch(torch.rand(7, 1, 2, 2), torch.arange(7), torch.arange(7) * 3)
    parts = parts_of(batch, 3)
    assert [len(part.x) for part in parts] == [3, 2, 2]
    assert torch.cat([part.index for part in parts]).equal(batch.index)
    assert sum(part.weight for part in parts) == pytest.approx(1)
    assert len(parts_of(batch, 100)) == 7


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_carries_something_over_needs_the_whole_batch(method: str) -> None:
    carried = {
        "free_at",
        "fgsm_bp",
        "tdat",
        "fgsm_uap",
        "fgsm_cuap",
        "liet",
        "fgsm_rs_cs",
        "fgsm_mep_cs",
        "fgsm_fuap",
        "fgsm_sdi",
    }
    if method in carried:
        with pytest.raises(UserError, match=f"^{method} remembers something from one batch to the next"):
            Experiment(method=METHODS[method](), accumulate=2)
    else:
        Experiment(method=METHODS[method](), accumulate=2)


def test_a_gate_that_counts_over_the_batch_needs_it_whole() -> None:
    with pytest.raises(UserError, match="gated_ema counts the correct predictions of a whole batch"):
        Experiment(method=FgsmPgk(), averaging=GatedEma(), accumulate=2)


@pytest.mark.parametrize("parts", [0, -1, 129])
def test_parts_must_fit_the_batch(parts: int) -> None:
    with pytest.raises(UserError, match=r"accumulate is -?\d+; it must lie in 1\.\.128"):
        Experiment(batch_size=128, accumulate=parts)
