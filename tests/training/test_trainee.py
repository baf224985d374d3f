"""What a step of training asks of the network, and of the device."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.devices import DEVICE, NoMoves
from regmix.config import Ema, GatedEma, OneCycle, Swa
from regmix.data import Digits, Loader, load
from regmix.methods import Elle, FgsmPgk, FgsmUap, FreeAt, Method, PgdAt, RegMix
from regmix.models import SmallCnn, build
from regmix.recipes import recipe
from regmix.runtime import devices
from regmix.training.trainee import Trainee
from regmix.types import Batch, Losses


class Images(torch.autograd.Function):
    """The identity, which counts how often a gradient comes back to the images."""

    returned = 0

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        Images.returned += 1
        return gradient


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(Images.apply(x))


@pytest.mark.parametrize(("method", "attack_steps"), [(RegMix(), 2), (FgsmPgk(), 1), (PgdAt(steps=3), 3)])
def test_images_get_a_gradient_from_the_attack_alone(method: Method, attack_steps: int) -> None:
    """Also where the loss goes back through a forward pass that it shares with the attack."""
    images = load(Digits(), "train").subset(torch.arange(20))
    experiment = replace(recipe("digits-regmix"), method=method, batch_size=20, pad=0)
    model = Counted(build(SmallCnn(width=4), 10, 1))
    frozen, learned = model.model.get_parameter("linear.weight"), model.model.get_parameter("conv1.weight")
    frozen.requires_grad_(False)
    before = frozen.clone(), learned.detach().clone()
    trainee = Trainee(devices.start("cpu", "32"), model, experiment, images, 1)
    Images.returned = 0
    trainee.learn(next(Loader(images, 20, "cpu", pad=0, flip=False, seed=0).epoch(0)))
    assert Images.returned == attack_steps
    assert torch.equal(frozen, before[0])
    assert not torch.equal(learned, before[1])


@pytest.mark.device
@pytest.mark.parametrize("method", [RegMix(), FgsmPgk(), FgsmUap(), Elle()], ids=lambda method: method.name)
def test_a_step_in_bfloat16_gets_the_images_of_the_loader_and_rounds_no_memory(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load(Digits(), "train").subset(torch.arange(20))
    experiment = replace(recipe("digits-regmix"), method=method, batch_size=20, pad=0)
    trainee = Trainee(
        devices.start(DEVICE.type, "bf16"), build(SmallCnn(width=4), 10, 1), experiment, images, 1
    )  # fmt: skip
    batch = next(Loader(images, 20, DEVICE, pad=0, flip=False, seed=0).epoch(0))
    compute, seen = type(method).compute, []

    def spied(self: Method, model: Any, given: Batch, *words: Any) -> Losses:
        seen.append(given.x)
        return compute(self, model, given, *words)

    monkeypatch.setattr(type(method), "compute", spied)
    trainee.learn(batch)
    (x,) = seen
    assert x.dtype == torch.float32
    assert torch.equal(x, batch.x)
    state = trainee.state_dict()["memory"] or {}
    assert torch.bfloat16 not in {value.dtype for value in state.values()}


class Elsewhere:
    """Stands in for Fabric on the device `meta`, whose tensors have no values."""

    device = torch.device("meta")

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module

    def setup_optimizers(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def backward(self, loss: Tensor, inputs: list[Tensor]) -> None:
        loss.backward(inputs=inputs)


@pytest.mark.parametrize(
    "changes",
    [
        {"averaging": Ema(), "clip_norm": 1.0},
        {"averaging": GatedEma(), "method": FgsmPgk(), "schedule": OneCycle()},
        {"averaging": Swa(start=1), "awp": 0.005, "method": RegMix(start="carried")},
        {"method": FreeAt(replays=2), "label_mass": 0.6},
    ],
)
def test_steps_do_not_wait_for_the_device(changes: dict[str, Any]) -> None:
    """Nor for its batch: all that the images need is moved when a pass over them begins."""
    images = load(Digits(), "train").subset(torch.arange(40))
    experiment = replace(recipe("digits-regmix"), batch_size=20, pad=1, flip=True, **changes)
    loader = Loader(images, 20, "meta", pad=1, flip=True, seed=0, replays=experiment.method.replays)
    trainee = Trainee(Elsewhere(), build(SmallCnn(width=4), 10, 1), experiment, images, len(loader))
    for epoch in range(3):
        trainee.progress.epoch, trainee.progress.step = epoch, 0
        batches = loader.epoch(epoch)
        trainee.learn(next(batches))
        with NoMoves():
            for batch in batches:
                trainee.learn(batch)
    assert trainee.progress.step == len(loader) == 2
    assert {parameter.device for parameter in trainee.model.parameters()} == {Elsewhere.device}
    with pytest.raises(RuntimeError, match="meta"):
        trainee.tally.means()
