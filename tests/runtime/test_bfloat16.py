"""Convolutions that this CPU gets wrong in bfloat16 are found, and no others."""

import pytest
import torch
from torch import Tensor, nn

from regmix.models import ResNet, SmallCnn, WideResNet, build
from regmix.runtime import bfloat16, devices
from regmix.runtime.bfloat16 import wrong_convolution

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (lambda: build(ResNet(width=16), 10, 3), 32),
        (lambda: build(ResNet(width=4), 10, 1), 8),
        (lambda: build(WideResNet(depth=16, widen=1), 10, 3), 32),
        (lambda: build(SmallCnn(width=4), 10, 1), 8),
        (lambda: nn.Conv2d(3, 16, 8, stride=8), 32),
        (lambda: nn.ConvTranspose2d(3, 16, 4, stride=4, padding=1), 2),
    ],
)
def test_nothing_is_found_in_usual_networks(model, side: int) -> None:
    torch.manual_seed(0)
    network = model()
    channels = next(network.parameters()).shape[1] if not isinstance(network, nn.ConvTranspose2d) else 3
    assert wrong_convolution(network, torch.rand(16, channels, side, side)) is None


@pytest.mark.parametrize(("stride", "padding", "size"), [(2, 1, (1, 1)), (3, 1, (2, 2)), ((1, 2), 1, (5, 1))])
def test_a_map_smaller_than_the_stride(stride: int | tuple[int, int], padding: int, size: tuple[int, int]) -> None:
    model = nn.Conv2d(4, 8, 3, stride=stride, padding=padding)
    assert "whose map is smaller than its stride" in str(wrong_convolution(model, torch.rand(2, 4, *size)))


def test_wrong_outputs_are_found_in_a_function_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.conv2d(x, torch.ones(8, 4, 2, 2), stride=2)

    x = torch.rand(2, 4, 8, 8)
    assert wrong_convolution(Functional(), x) is None
    monkeypatch.setattr(bfloat16, "_agrees", lambda args: False)
    assert wrong_convolution(Functional(), x) == "a convolution with kernel 2x2 and stride 2 from 4 to 8 channels"


@pytest.mark.parametrize(("channels", "kernel"), [(16, 4), (8, 8), (24, 4), (32, 4), (16, 3), (64, 2)])
def test_what_is_not_found_is_right(channels: int, kernel: int) -> None:
    """On a CPU with AMX some of these are wrong; whatever this CPU is, none may be wrong and unfound."""
    if not devices.computes_in_bfloat16(CPU):
        pytest.skip("bfloat16 is emulated here")
    torch.manual_seed(0)
    model, x = nn.Conv2d(channels, 16, kernel, stride=kernel, bias=False), torch.rand(6, channels, 4 * kernel, 32)
    x = (x - 0.5).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            right = float((model(x).float() - expected).abs().max()) < 0.03 * float(expected.abs().max())
    assert right == (wrong_convolution(model, x) is None)


def test_the_model_stays_as_it_was() -> None:
    model = build(ResNet(width=4), 10, 3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, state = torch.rand(2, 3, 16, 16), torch.get_rng_state()
    assert wrong_convolution(model, x) is None
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_buffers_that_change_in_evaluation_mode_are_restored() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x

    model = Counting().eval()
    wrong_convolution(model, torch.rand(2, 3, 4, 4))
    assert model.seen == 0


def test_a_frozen_weight_needs_no_gradient() -> None:
    model, x = nn.Conv2d(4, 8, 3, stride=2, padding=1), torch.rand(2, 4, 1, 1)
    assert wrong_convolution(model, x) is not None
    model.weight.requires_grad_(False)
    assert wrong_convolution(model, x) is None


def test_only_a_padded_side_matters() -> None:
    """The height is smaller than the stride, and has no padding."""
    assert wrong_convolution(nn.Conv2d(4, 8, (1, 3), (2, 2), (0, 1)), torch.rand(2, 4, 1, 32)) is None


def test_what_is_only_computed_in_training_is_seen() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Conv2d(3, 8, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.more(x) if self.training else x

    x = torch.rand(2, 3, 1, 1)
    assert wrong_convolution(Auxiliary().eval(), x) is None
    assert wrong_convolution(Auxiliary(), x) is not None


def test_what_was_found_before_a_model_fails_is_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(7, 2))
    assert wrong_convolution(model, torch.rand(2, 3, 1, 1)) is not None


def test_a_transposed_convolution_to_a_small_map() -> None:
    model = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1)
    found = wrong_convolution(model, torch.rand(2, 8, 1, 1))
    assert str(found).startswith("the gradient of a transposed convolution with kernel 3x3 and stride 2 from 8 to 4")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["plain", "traced", "scripted"])
@pytest.mark.parametrize(("channels", "kernel"), [(16, 4), (8, 8), (64, 8), (16, 3)])
def test_a_wrong_input_gradient_of_a_transposed_convolution_is_found(channels: int, kernel: int, form: str) -> None:
    """It is a convolution of the outputs' gradient, with the same faults."""
    if not devices.computes_in_bfloat16(CPU):
        pytest.skip("bfloat16 is emulated here")
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(32, channels, kernel, stride=kernel, bias=False)
    x = (torch.rand(4, 32, 8, 8) - 0.5).contiguous(memory_format=torch.channels_last).requires_grad_()
    model = {"plain": lambda m: m, "traced": lambda m: torch.jit.trace(m, x), "scripted": torch.jit.script}[form](model)
    weights = torch.randn_like(model(x))

    def gradient() -> Tensor:
        return torch.autograd.grad((model(x).float() * weights).sum(), x)[0]

    expected = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        right = float((gradient() - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert right == (wrong_convolution(model, x.detach()) is None)


def test_a_model_that_fails_is_for_others_to_report() -> None:
    assert wrong_convolution(nn.Linear(3, 2), torch.rand(2, 3, 8, 9)) is None
