"""A small convolutional network."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from regmix.models.base import ACTIVATIONS, Activation, Architecture, Normalise, conv3x3, pool, require
from regmix.types import Tag


@dataclass(frozen=True)
class SmallCnn(Architecture):
    """Three 3x3 convolutions of w, 2w, 4w channels and stride 1, 2, 2, with BatchNorm and activation, average pool.

    For images of 8 to 32 pixels, such as scanned digits. With width 32, 10 classes and 1 channel it has 94,186
    parameters.
    """

    name: Tag[Literal["small_cnn"]] = field(default="small_cnn", kw_only=True)
    width: int = 32
    """Channels of the first convolution."""
    activation: Activation = "relu"
    """Function between layers. silu, gelu and softplus are smooth, which can help robustness (arXiv 2010.00467)."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        require("SmallCnn width", self.width)
        return SmallNetwork(self, classes, normalise)


class SmallNetwork(nn.Module):
    """Three convolutions, global average pool, linear layer."""

    def __init__(self, config: SmallCnn, classes: int, normalise: Normalise) -> None:
        super().__init__()
        width, self.activate = config.width, ACTIVATIONS[config.activation]
        self.normalise = normalise
        self.conv1 = conv3x3(normalise.channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, 2 * width, stride=2)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = conv3x3(2 * width, 4 * width, stride=2)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activate(self.bn1(self.conv1(self.normalise(x))))
        out = self.activate(self.bn2(self.conv2(out)))
        out = self.activate(self.bn3(self.conv3(out)))
        logits: Tensor = self.linear(pool(out))
        return logits
