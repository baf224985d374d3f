"""What a step of training asks of the network."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from regmix.data import Digits, Loader, load
from regmix.methods import FgsmPgk, Method, PgdAt, RegMix
from regmix.models import SmallCnn, build
from regmix.recipes import recipe
from regmix.training import engine
from regmix.training.plan import Plan
from regmix.training.trainee import Trainee


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
    plan = Plan(**{name: getattr(experiment, name) for name in Plan.__dataclass_fields__})
    model = Counted(build(SmallCnn(width=4), 10, 1))
    frozen, learned = model.model.get_parameter("linear.weight"), model.model.get_parameter("conv1.weight")
    frozen.requires_grad_(False)
    before = frozen.clone(), learned.detach().clone()
    trainee = Trainee(engine.start("cpu", "32"), model, plan, images, 1)
    Images.returned = 0
    trainee.learn(next(Loader(images, 20, "cpu", pad=0, flip=False, seed=0).epoch(0)))
    assert Images.returned == attack_steps
    assert torch.equal(frozen, before[0])
    assert not torch.equal(learned, before[1])
