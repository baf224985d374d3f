"""Parts that all architectures here share: the protocol of their settings, the normalisation, common layers."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regmix.types import UserError

MOST_SIZE = 65_536
"""Upper limit of widths, width factors and numbers of classes."""


Activation = Literal["relu", "silu", "gelu", "softplus"]
"""Names of the functions between layers. No name or shape of a checkpoint shows which one a network has."""
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "softplus": F.softplus,
}


class Architecture(Protocol):
    """The settings of a model: a frozen dataclass that builds the network."""

    def network(self, classes: int, normalise: "Normalise") -> nn.Module:
        """Builds the freshly initialised network: images [B, C, H, W] in [0, 1] to logits [B, classes].

        Raises:
            UserError: a setting is invalid.
        """
        ...


class Normalise(nn.Module):
    """(x - mean) / std, with one value per channel or one for all. Both are buffers [1, C, 1, 1]."""

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
    """A 3x3 convolution with padding 1 and without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def stage(
    block: Callable[[int, int, int], nn.Module], count: int, inputs: int, outputs: int, stride: int
) -> nn.Sequential:
    """`count` blocks in a row; the first one changes the width and the resolution. `block` takes (inputs, outputs,
    stride)."""
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(count - 1)))


def pool(x: Tensor) -> Tensor:
    """Global average pool: [B, C, H, W] to [B, C]."""
    return torch.mean(x, dim=(2, 3))


def require(name: str, value: int, allowed: Collection[int] | None = None) -> None:
    """Raises UserError unless the setting is one of the allowed values (if given) and in 1..MOST_SIZE."""
    if allowed is not None and value not in allowed:
        raise UserError(f"{name} {value} does not exist; choose one of {', '.join(map(str, allowed))}")
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")
    if value > MOST_SIZE:
        raise UserError(f"{name} must not exceed {MOST_SIZE:,}")
