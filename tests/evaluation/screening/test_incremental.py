"""Logits of images that differ from known ones in a square are those of the whole network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from regmix.attacks import Screened, Square
from regmix.data import ImageSet
from regmix.evaluation.screening import incremental, rough_copy
from regmix.evaluation.screening.incremental import Incremental
from regmix.evaluation.screening.rough_copy import _folded, screened
from regmix.models import PreActResNet, ResNet, SmallCnn, WideResNet, build
from regmix.runtime import devices
from regmix.threats import L2, Linf


@pytest.fixture(autouse=True)
def _small_networks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incremental, "WORTH", 1)


class Odd(nn.Module):
    """Kernels of every kind, paths that reach differently far, operations that need whole maps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.rand(1, 3, 1, 1))
        self.register_buffer("field", torch.rand(1, 6, 24, 22))
        self.wide = nn.Conv2d(3, 6, 5, padding=2)
        self.apart = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2)
        self.even = nn.Conv2d(6, 6, (3, 1), padding=(1, 0))
        self.norm = nn.BatchNorm2d(6)
        self.step = nn.Conv2d(6, 8, 4, stride=2, padding=1)
        self.bare = nn.Conv2d(6, 8, 2, stride=2)
        self.gate = nn.Conv2d(8, 8, 1)
        self.after = nn.Conv2d(8, 4, 3, stride=3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.wide((x - self.shift.abs()) * 2))
        x = self.norm(self.apart(x) + self.even(x)) + x
        x = x * self.field
        x = torch.relu(self.step(x)) - self.bare(x)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(self.after(x).amax((2, 3)))


class Overwriting(nn.Module):
    """Writes over a map that it reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return (self.second(self.relu(x)) + x).mean((2, 3))


class OverwritingOnce(nn.Module):
    """Writes over maps that nothing else reads, with what changes a map each time that it is done."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.point = kind(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.point(self.first(x))).mean((2, 3))


def lively(model: nn.Module) -> nn.Module:
    """In evaluation mode, with BatchNorm statistics that change something, in float64."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.running_mean is None or module.running_var is None:
                continue
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval().double().requires_grad_(False)


@torch.no_grad()
def own_labels(model: nn.Module, x: Tensor) -> Tensor:
    """The model's own answers, once its bias lets it give more than one."""
    assert isinstance(model.linear, nn.Linear)
    model.linear.bias -= model(x).mean(0)  # or all would be of one class, far from the others
    return model(x).argmax(1)


def near(images: Tensor, side: int) -> Tensor:
    """The images with a random square each: in the first in the corner at the top, in the second in that below."""
    trial, (height, width) = images.clone(), images.shape[2:]
    for row in range(len(images)):
        top, left = int(torch.randint(height - side + 1, ())), int(torch.randint(width - side + 1, ()))
        if row < 2:
            top, left = row * (height - side), row * (width - side)
        trial[row, :, top : top + side, left : left + side] = torch.rand_like(trial[row, :, :side, :side])
    return trial


MODELS = {
    "resnet": (lambda: build(ResNet(width=4), 10, channels=3), (3, 32, 32)),
    "preact": (lambda: build(PreActResNet(width=4), 10, channels=3), (3, 32, 32)),
    "wide": (lambda: build(WideResNet(depth=16, widen=1), 10, channels=3), (3, 32, 32)),
    "small": (lambda: build(SmallCnn(width=4), 10, channels=1), (1, 8, 8)),
    "odd": (Odd, (3, 24, 22)),
    "overwriting": (Overwriting, (3, 16, 16)),
    "mish": (lambda: OverwritingOnce(nn.Mish), (3, 16, 16)),
    "batch": (
        lambda: nn.Sequential(Odd().wide, nn.BatchNorm2d(6, track_running_stats=False), nn.Flatten()),
        (3, 16, 16),
    ),
    "silu": (lambda: OverwritingOnce(nn.SiLU), (3, 16, 16)),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_logits_are_those_of_the_whole_network(name: str) -> None:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = lively(make())
    ask = Incremental(fx.symbolic_trace(copy.deepcopy(model)))
    images = torch.rand(8, *shape, dtype=torch.double)
    for number, side in enumerate((7, 7, 5, 5, 5, 3, 3, 2, 2, 1, 1, 4, 4)):
        trial = near(images, side)
        trial[2] = images[2]
        before = images.clone()
        torch.testing.assert_close(ask(images, trial, side), model(trial), rtol=1e-10, atol=1e-12)
        assert torch.equal(images, before)
        kept = torch.rand(len(images)) < 0.5
        ask.keep(kept)
        images[kept] = trial[kept]
        if number % 4 == 1:
            out = torch.arange(len(images)) == 3
            ask.leave(out)
            images = images[~out]


@torch.no_grad()
def test_a_small_square_costs_less_than_the_whole_network() -> None:
    torch.manual_seed(0)
    model = lively(build(ResNet(width=4), 10, channels=3))
    ask, images = Incremental(fx.symbolic_trace(model)), torch.rand(4, 3, 32, 32, dtype=torch.double)
    ask(images, images, 3)
    flops = {}
    for name, answer in (("whole", model), ("near", lambda trial: ask(images, trial, 3))):
        with FlopCounterMode(display=False) as counter:
            answer(near(images, 3))
        flops[name] = counter.get_total_flops()
    # a window of 3 + 2 k pixels after k convolutions, of 32, 16, 8 and 4 a side
    assert flops["near"] < 0.7 * flops["whole"]


@torch.no_grad()
def test_what_is_not_kept_is_forgotten() -> None:
    torch.manual_seed(0)
    model = lively(build(ResNet(width=4), 10, channels=3))
    ask, images = Incremental(fx.symbolic_trace(model)), torch.rand(4, 3, 32, 32, dtype=torch.double)
    ask(images, near(images, 3), 3)
    trial = near(images, 3)
    torch.testing.assert_close(ask(images, trial, 3), model(trial), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_more_than_a_square_is_an_error() -> None:
    ask = Incremental(fx.symbolic_trace(lively(build(ResNet(width=4), 10, channels=3))))
    images = torch.rand(2, 3, 32, 32, dtype=torch.double)
    trial = images.clone()
    trial[0, :, 0, 0] = trial[0, :, 9, 9] = 0.5
    with pytest.raises(AssertionError, match="more than a square"):
        ask(images, trial, 3)


@pytest.mark.slow
@pytest.mark.skipif(
    not devices.computes_in_bfloat16(torch.device("cpu")), reason="bfloat16 is emulated here, and takes ten minutes"
)
def test_real_images_in_a_wide_network_in_bfloat16(monkeypatch: pytest.MonkeyPatch, cifar10_test: ImageSet) -> None:
    monkeypatch.undo()  # windows of this network are worth their cost
    monkeypatch.setattr(rough_copy, "AGREE", float("inf"))  # the logits of an untrained network hardly differ
    torch.manual_seed(0)
    model, x = build(ResNet(width=64), 10, channels=3).train(), cifar10_test.images[:32] / 255
    for _ in range(30):
        model(x)  # with statistics of BatchNorm that fit no images, a square changes less than rounding does
    model.eval().requires_grad_(False)
    y = own_labels(model, x)
    rough = screened(model, x, y)
    spent, changed, wrong = {"near": 0, "whole": 0}, 0.0, 0.0

    class Compared:
        def __init__(self) -> None:
            self.near = rough.nearby()
            self.keep, self.leave = self.near.keep, self.near.leave

        def __call__(self, images: Tensor, trial: Tensor, side: int) -> Tensor:
            nonlocal changed, wrong
            logits = {}
            for name, answer in (("near", lambda: self.near(images, trial, side)), ("whole", lambda: rough(trial))):
                with FlopCounterMode(display=False) as counter:
                    logits[name] = answer()
                spent[name] += counter.get_total_flops()
            changed = max(changed, float((logits["whole"] - rough(images)).abs().max()))
            wrong = max(wrong, float((logits["near"] - logits["whole"]).abs().max()))
            return logits["near"]

    attack = Square(queries=70, share=0.05)  # squares of 7, 5 and 4 pixels
    delta = attack(Screened(rough.rough, rough.exact, rough.slack, Compared), x, y, Linf(4 / 255))
    assert 0 < delta.abs().amax() <= 4 / 255 + 1e-6
    assert wrong <= rough.slack, "within the slack the exact model is asked"
    assert wrong < 0.2 * changed, "which could be told from a window that misses its square"
    assert 0 < spent["near"] < 0.9 * spent["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.6)])
def test_square_finds_the_same_with_and_without_it(threat) -> None:
    torch.manual_seed(0)
    model = lively(build(ResNet(width=4), 10, channels=3))
    x = torch.rand(8, 3, 32, 32, dtype=torch.double)
    y = own_labels(model, x)
    graph = _folded(copy.deepcopy(model))
    assert graph is not None
    made = []

    def nearby() -> Incremental:
        made.append(Incremental(graph))
        return made[-1]

    attack = Square(queries=120)
    whole = attack(graph, x, y, threat)
    assert torch.equal(attack(Screened(graph, graph, 0.0, nearby), x, y, threat), whole)
    with torch.no_grad():
        broken = model(x + whole).argmax(1) != y
    assert broken.any()
    assert not broken.all()
    assert len(made) == (1 if isinstance(threat, Linf) else 0)
