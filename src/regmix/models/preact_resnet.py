"""Pre-activation ResNet for small images."""

from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from regmix.models.base import Architecture, Normalise, conv3x3, pool, require, stage
from regmix.models.resnet import BLOCKS
from regmix.types import Tag


@dataclass(frozen=True)
class PreActResNet(Architecture):
    """Pre-activation ResNet for small images, with a final BatchNorm and ReLU before the global average pool.

    Depth 18 and width 64 at 10 classes have 11,172,170 parameters. Public implementations differ: some lack
    the final `bn` (1,024 parameters less; their checkpoints are refused), and in some the shortcut
    convolution sees the block's input before BatchNorm and ReLU, which no name tells. This is the variant of
    "Overfitting in adversarially robust deep learning", with its names (conv1, layer1.0.bn1,
    layer2.0.shortcut.0, bn, linear). Raises UserError for an unknown depth. Sources: arXiv 1603.05027,
    2002.11569.
    """

    name: Tag[Literal["preact_resnet"]] = field(default="preact_resnet", kw_only=True)
    depth: int = 18
    """Layers with weights: 18 or 34."""
    width: int = 64
    """Channels of the first stage."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        require("PreActResNet depth", self.depth, BLOCKS)
        require("PreActResNet width", self.width)
        return PreActResidualNetwork(BLOCKS[self.depth], self.width, classes, normalise)


class PreActBlock(nn.Module):
    """With a = relu(bn(x)): conv(relu(bn(conv(a)))) + x, or + shortcut(a) where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + residual


class PreActResidualNetwork(nn.Module):
    """Stem, four stages, BatchNorm and ReLU, global average pool, linear head."""

    def __init__(self, blocks: tuple[int, ...], width: int, classes: int, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv1 = conv3x3(normalise.channels, width)
        self.layer1 = stage(PreActBlock, blocks[0], width, width, stride=1)
        self.layer2 = stage(PreActBlock, blocks[1], width, 2 * width, stride=2)
        self.layer3 = stage(PreActBlock, blocks[2], 2 * width, 4 * width, stride=2)
        self.layer4 = stage(PreActBlock, blocks[3], 4 * width, 8 * width, stride=2)
        self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.normalise(x))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.linear(pool(F.relu(self.bn(out))))
        return logits
