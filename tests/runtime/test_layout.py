"""Models that oneDNN gets wrong in channels_last stay contiguous."""

import pytest
import torch
from torch import nn

from regmix.models import ResNet, build
from regmix.runtime.layout import is_contiguous, place

CPU = torch.device("cpu")


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(model(x).square().sum(), [*model.parameters()]))


@pytest.mark.parametrize("width", [3, 4, 6, 8, 16])
def test_gradients_of_narrow_networks_are_those_of_the_contiguous_one(width: int) -> None:
    torch.manual_seed(0)
    model = build(ResNet(width=width), 10, 3).eval()
    x = torch.rand(2, 3, 16, 16)
    expected = gradients(model, x)
    placed = place(model, CPU)
    assert is_contiguous(placed) is (width < 16)
    found = gradients(placed, x.contiguous(memory_format=torch.channels_last))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("stride", [2, 3, (2, 1), (1, 2)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7, 8, 9, 15])
def test_gradients_of_strided_1x1_convolutions(channels: int, stride: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 8, 1, stride=stride, bias=False))
    x = torch.rand(2, channels, 16, 16)
    (expected,) = gradients(model, x)
    (found,) = gradients(place(model, CPU), x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("convolution", "contiguous"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), True),
        (nn.Conv2d(15, 8, 1, stride=(1, 2)), True),
        (nn.Conv2d(32, 32, 1, stride=2, groups=8), True),
        (nn.Conv2d(16, 8, 1, stride=2), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), False),
    ],
)
def test_which_convolutions_are_meant(convolution: nn.Conv2d, contiguous: bool) -> None:
    assert is_contiguous(place(nn.Sequential(convolution), CPU)) is contiguous
