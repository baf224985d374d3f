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
    monkeypatch.setattr(bfloat16, "_agrees", lambda convolution, args: False)
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


def test_a_model_that_fails_is_for_others_to_report() -> None:
    assert wrong_convolution(nn.Linear(3, 2), torch.rand(2, 3, 8, 9)) is None
