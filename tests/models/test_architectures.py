"""Sizes, shapes, names and the function itself of every architecture."""

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch
import torch.nn.functional as F
import tyro
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from regmix.models import ModelConfig, PreActResNet, ResNet, SmallCnn, WideResNet, build
from regmix.models.base import Activation
from regmix.types import UserError

SMALL = [ResNet(width=4), PreActResNet(width=4), WideResNet(depth=10, widen=1), SmallCnn(width=4)]
every = pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)


@pytest.mark.parametrize(
    ("config", "classes", "channels", "count"),
    [
        (ResNet(), 10, 3, 11_173_962),
        (ResNet(), 100, 3, 11_173_962 + 90 * 513),
        (ResNet(depth=34), 10, 3, 21_282_122),
        (PreActResNet(), 10, 3, 11_172_170),
        (PreActResNet(final_norm=False), 10, 3, 11_172_170 - 1024),
        (WideResNet(), 10, 3, 46_160_474),
        (WideResNet(depth=28), 10, 3, 36_479_194),
        (SmallCnn(), 10, 1, 94_186),
    ],
)
def test_parameter_counts_are_the_published_ones(config: ModelConfig, classes: int, channels: int, count: int) -> None:
    with torch.device("meta"):
        model = build(config, classes, channels)
    assert sum(p.numel() for p in model.parameters()) == count


@every
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pixels", [8, 32, 64])
def test_gives_one_logit_per_class(config: ModelConfig, channels: int, pixels: int) -> None:
    model = build(config, classes=7, channels=channels).eval()
    assert model(torch.rand(2, channels, pixels, pixels)).shape == (2, 7)


@every
def test_normalises_inside(config: ModelConfig) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    inside = build(config, 10, 3, mean, std).double().eval()
    outside = build(config, 10, 3).double().eval()
    outside.load_state_dict(
        {name: value for name, value in inside.state_dict().items() if not name.startswith("normalise")},
        strict=False,
    )
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    shift, scale = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(inside(x), outside((x - shift) / scale))
    assert inside.state_dict()["normalise.mean"].shape == (1, 3, 1, 1)


def test_normalisation_by_default_changes_no_bit() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(build(SmallCnn(), 10).normalise(x), x)


@every
def test_gradients_are_finite_and_reach_every_parameter(config: ModelConfig) -> None:
    model = build(config, 10).double()
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(model(x), torch.arange(4)).backward()
    for name, gradient in [("x", x.grad), *((name, p.grad) for name, p in model.named_parameters())]:
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


@every
def test_channels_last_and_bf16_autocast_agree_with_float32(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = build(config, 10).eval()
    x = torch.rand(4, 3, 16, 16)
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x), expected, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(last(x).float(), expected, rtol=0.1, atol=0.05 * expected.abs().max().item())


@every
def test_same_seed_same_weights(config: ModelConfig) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(config, 10).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ResNet(depth=50), "ResNet depth 50 does not exist; choose one of 18, 34"),
        (PreActResNet(depth=20), "PreActResNet depth 20 does not exist; choose one of 18, 34"),
        (WideResNet(depth=33), "WideResNet depth 33 does not exist; choose one of 10, 16, 22, 28, 34"),
        (WideResNet(depth=4), "WideResNet depth 4 does not exist"),
        (WideResNet(widen=0), "WideResNet widen must be at least 1, got 0"),
        (ResNet(width=0), "ResNet width must be at least 1, got 0"),
        (SmallCnn(width=-1), "SmallCnn width must be at least 1, got -1"),
    ],
)
def test_settings_that_do_not_exist_are_told(config: ModelConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(config, 10)


def test_bad_statistics_are_told() -> None:
    with pytest.raises(UserError, match="mean needs 1 or 3 values for 3 channels, got 2"):
        build(SmallCnn(), 10, 3, mean=(0.5, 0.5))
    with pytest.raises(UserError, match="std must be positive"):
        build(SmallCnn(), 10, 3, std=(0.5, 0.5, 0.0))


@every
def test_configs_survive_json_and_choose_their_class(config: ModelConfig) -> None:
    adapter = TypeAdapter(ModelConfig)
    assert adapter.validate_python(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(ValidationError):
        adapter.validate_python({"name": "resnet_of_the_future"})
    with pytest.raises(FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]


def test_configs_are_command_line_options() -> None:
    assert tyro.cli(ModelConfig, args=["wide-res-net", "--depth", "16", "--widen", "4"]) == WideResNet(
        depth=16, widen=4
    )


# The references below are written on the parameter names alone.


def bn(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def blocks(state: dict[str, Tensor], stages: list[str]) -> list[tuple[str, int]]:
    """Names and strides of the residual blocks in order."""
    found = []
    for number, stage in enumerate(stages):
        count = len({name.removeprefix(stage).split(".")[0] for name in state if name.startswith(stage)})
        found += [(f"{stage}{i}.", 2 if number > 0 and i == 0 else 1) for i in range(count)]
    return found


Act = Callable[[Tensor], Tensor]
FORMULAS: dict[str, Act] = {
    "relu": lambda x: x.clamp_min(0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "softplus": lambda x: torch.log1p(torch.exp(x)),
}


def resnet(state: dict[str, Tensor], x: Tensor, act: Act) -> Tensor:
    x = act(bn(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for b, stride in blocks(state, [f"layer{i}." for i in range(1, 5)]):
        out = act(bn(state, b + "bn1", F.conv2d(x, state[b + "conv1.weight"], stride=stride, padding=1)))
        out = bn(state, b + "bn2", F.conv2d(out, state[b + "conv2.weight"], padding=1))
        if b + "shortcut.0.weight" in state:
            x = bn(state, b + "shortcut.1", F.conv2d(x, state[b + "shortcut.0.weight"], stride=stride))
        x = act(out + x)
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


def preact(
    state: dict[str, Tensor],
    x: Tensor,
    act: Act,
    stages: list[str],
    shortcut: str,
    final: str,
    head: str,
    raw: bool = False,
) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for b, stride in blocks(state, stages):
        active = act(bn(state, b + "bn1", x))
        out = F.conv2d(active, state[b + "conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(act(bn(state, b + "bn2", out)), state[b + "conv2.weight"], padding=1)
        if b + shortcut in state:
            x = F.conv2d(x if raw else active, state[b + shortcut], stride=stride)
        x = x + out
    if final + ".weight" in state:
        x = act(bn(state, final, x))
    return F.linear(x.mean((2, 3)), state[head + ".weight"], state[head + ".bias"])


def reference(config: ModelConfig, state: dict[str, Tensor], x: Tensor) -> Tensor:
    act = FORMULAS[config.activation]
    match config:
        case ResNet():
            return resnet(state, x, act)
        case PreActResNet():
            stages = [f"layer{i}." for i in range(1, 5)]
            return preact(state, x, act, stages, "shortcut.0.weight", "bn", "linear", config.shortcut == "raw")
        case WideResNet():
            stages = [f"block{i}.layer." for i in range(1, 4)]
            return preact(state, x, act, stages, "convShortcut.weight", "bn1", "fc")
        case SmallCnn():
            for i, stride in ((1, 1), (2, 2), (3, 2)):
                x = F.conv2d(x, state[f"conv{i}.weight"], stride=stride, padding=1)
                x = act(bn(state, f"bn{i}", x))
            return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize(
    "config",
    [
        *SMALL,
        *(replace(config, activation=name) for config in SMALL for name in ("silu", "gelu", "softplus")),
        ResNet(depth=34, width=3),
        PreActResNet(depth=34, width=3),
        PreActResNet(width=3, shortcut="raw"),
        PreActResNet(width=3, final_norm=False),
        PreActResNet(width=3, shortcut="raw", final_norm=False),
        WideResNet(depth=16, widen=2),
    ],
    ids=lambda config: str(config),
)
def test_computes_what_its_parameter_names_say(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = build(config, 10).double()
    model(torch.rand(16, 3, 16, 16, dtype=torch.float64))  # moves the running statistics away from 0 and 1
    model.eval()
    state = model.state_dict()
    for name, value in state.items():
        if "bn" in name and name.endswith(("weight", "bias")):
            value.add_(0.1 * torch.randn_like(value))
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(x), reference(config, state, x))


@pytest.mark.parametrize("activation", ["silu", "gelu", "softplus"])
def test_a_network_with_another_activation_is_copied_pickled_and_exported(activation: Activation) -> None:
    model, x = build(PreActResNet(width=2, activation=activation), 3).eval(), torch.rand(2, 3, 8, 8)
    expected = model(x)
    for other in (deepcopy(model), pickle.loads(pickle.dumps(model)), torch.export.export(model, (x,)).module()):
        torch.testing.assert_close(other(x), expected)
    assert not torch.equal(build(PreActResNet(width=2), 3).eval()(x), expected)
