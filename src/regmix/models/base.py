"""What every architecture here shares: the form of its settings, the normalisation inside, common layers."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from regmix.types import UserError

MOST_SIZE = 65_536
"""The most that a width, a factor of it or a number of classes may be."""


class Architecture(Protocol):
    """A model's settings: a frozen dataclass that builds the freshly initialised network."""

    def network(self, classes: int, normalise: "Normalise") -> nn.Module:
        """Images [B, C, H, W] in [0, 1] to logits [B, classes]; UserError for settings that do not exist."""
        ...


class Normalise(nn.Module):
    """(x - mean) / std, given one value per channel or one for all; both are buffers [1, C, 1, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.channels = channels
        for name, values in (("mean", mean), ("std", std)):
            per_channel = values if len(values) == channels else [values[0]] * channels
            self.register_buffer(name, torch.tensor(per_channel, dtype=torch.float32).view(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """The 3x3 convolution without bias that all of these networks are made of."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def stage(
    block: Callable[[int, int, int], nn.Module], count: int, inputs: int, outputs: int, stride: int
) -> nn.Sequential:
    """`count` blocks (inputs, outputs, stride) in a row; the first changes the width and the resolution."""
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(count - 1)))


def pool(x: Tensor) -> Tensor:
    """[B, C, H, W] to the mean of every channel, [B, C]."""
    return torch.mean(x, dim=(2, 3))


def require(name: str, value: int, allowed: Collection[int] | None = None) -> None:
    """Raises UserError unless the setting is among the allowed values, or at least 1 where none are given."""
    if allowed is not None and value not in allowed:
        raise UserError(f"{name} {value} does not exist; choose one of {', '.join(map(str, allowed))}")
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")
    if value > MOST_SIZE:
        raise UserError(f"{name} must not exceed {MOST_SIZE:,}")
