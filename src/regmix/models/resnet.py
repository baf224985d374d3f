"""ResNet for small images."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import Tensor, nn

from regmix.models.base import ACTIVATIONS, Activation, Architecture, Normalise, conv3x3, pool, require, stage
from regmix.types import Tag

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Residual blocks in each of the four stages, by depth."""


@dataclass(frozen=True)
class ResNet(Architecture):
    """ResNet for small images: first convolution 3x3 with stride 1, no max pool, stages of width w, 2w, 4w, 8w.

    With depth 18, width 64 and 10 classes it has 11,173,962 parameters. Their names (conv1, layer1.0.conv1,
    layer2.0.shortcut.0, linear) and initialisation (torch's defaults) are those of the common CIFAR implementations.
    A checkpoint does not show strides or a max pool: weights of a network that differs in these load without an error
    but give wrong logits; use `function` for such models. The 7x7 first convolution of ImageNet networks is recognised
    by its shape. Source: arXiv 1512.03385.

    Raises:
        UserError: an unknown depth.
    """

    name: Tag[Literal["resnet"]] = field(default="resnet", kw_only=True)
    depth: int = 18
    """Layers with weights: 18 or 34."""
    width: int = 64
    """Channels of the first stage."""
    activation: Activation = "relu"
    """Function between layers. silu, gelu and softplus are smooth, which can help robustness (arXiv 2010.00467)."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        require("ResNet depth", self.depth, BLOCKS)
        require("ResNet width", self.width)
        return ResidualNetwork(self, classes, normalise)


class ResidualBlock(nn.Module):
    """act(bn(conv(act(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[activation]
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.activate(self.bn1(self.conv1(x)))
        return self.activate(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """First convolution, four stages, global average pool, linear layer."""

    def __init__(self, config: ResNet, classes: int, normalise: Normalise) -> None:
        super().__init__()
        blocks, width = BLOCKS[config.depth], config.width
        block = partial(ResidualBlock, activation=config.activation)
        self.activate = ACTIVATIONS[config.activation]
        self.normalise = normalise
        self.conv1 = conv3x3(normalise.channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(block, blocks[0], width, width, stride=1)
        self.layer2 = stage(block, blocks[1], width, 2 * width, stride=2)
        self.layer3 = stage(block, blocks[2], 2 * width, 4 * width, stride=2)
        self.layer4 = stage(block, blocks[3], 4 * width, 8 * width, stride=2)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.activate(self.bn1(self.conv1(self.normalise(x))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(pool(out))
        return logits
