"""Pre-activation ResNet for small images."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import Tensor, nn

from regmix.models.base import ACTIVATIONS, Activation, Architecture, Normalise, conv3x3, pool, require, stage
from regmix.models.resnet import BLOCKS
from regmix.types import Tag

Shortcut = Literal["activated", "raw"]


@dataclass(frozen=True)
class PreActResNet(Architecture):
    """Pre-activation ResNet for small images, in the four variants of public code bases.

    With depth 18, width 64 and 10 classes it has 11,172,170 parameters. The variants share their name and their
    parameter names (conv1, layer1.0.bn1, layer2.0.shortcut.0, bn, linear). They differ in `shortcut`, which no name or
    shape of a checkpoint shows, and in `final_norm`:

    - activated, with final norm (default): locuslab/robust_overfitting and code derived from it; Rice2020Overfitting
      in RobustBench.
    - activated, without: kuangliu/pytorch-cifar, FastAT Benchmark.
    - raw, with: locuslab/fast_adversarial and code derived from it, such as AAER's for SVHN.
    - raw, without: Wong2020Fast in RobustBench.

    The activation does not show in a checkpoint either, and neither do strides, of which others are not supported.
    Sources: arXiv 1603.05027, 2002.11569.

    Raises:
        UserError: an unknown depth.
    """

    name: Tag[Literal["preact_resnet"]] = field(default="preact_resnet", kw_only=True)
    depth: int = 18
    """Layers with weights: 18 or 34."""
    width: int = 64
    """Channels of the first stage."""
    shortcut: Shortcut = "activated"
    """Input of a block's shortcut convolution. activated: after BatchNorm and activation. raw: before them."""
    final_norm: bool = True
    """Put BatchNorm and activation between the last block and the global average pool."""
    activation: Activation = "relu"
    """Function between layers. silu, gelu and softplus are smooth, which can help robustness (arXiv 2010.00467)."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        require("PreActResNet depth", self.depth, BLOCKS)
        require("PreActResNet width", self.width)
        return PreActResidualNetwork(self, classes, normalise)


class PreActBlock(nn.Module):
    """conv(act(bn(conv(a)))) + x with a = act(bn(x)); where the shape changes, + shortcut(a) or shortcut(x)."""

    def __init__(self, inputs: int, outputs: int, stride: int, sees: Shortcut, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
        self.sees, self.activate = sees, ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(self.bn1(x))
        residual = x
        if self.shortcut is not None:
            residual = self.shortcut(activated if self.sees == "activated" else x)
        out: Tensor = self.conv2(self.activate(self.bn2(self.conv1(activated))))
        return out + residual


class PreActResidualNetwork(nn.Module):
    """First convolution, four stages, optional BatchNorm and activation, global average pool, linear layer."""

    def __init__(self, config: PreActResNet, classes: int, normalise: Normalise) -> None:
        super().__init__()
        blocks, width = BLOCKS[config.depth], config.width
        block = partial(PreActBlock, sees=config.shortcut, activation=config.activation)
        self.activate = ACTIVATIONS[config.activation]
        self.normalise = normalise
        self.conv1 = conv3x3(normalise.channels, width)
        self.layer1 = stage(block, blocks[0], width, width, stride=1)
        self.layer2 = stage(block, blocks[1], width, 2 * width, stride=2)
        self.layer3 = stage(block, blocks[2], 2 * width, 4 * width, stride=2)
        self.layer4 = stage(block, blocks[3], 4 * width, 8 * width, stride=2)
        self.bn = nn.BatchNorm2d(8 * width) if config.final_norm else None
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.normalise(x))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        if self.bn is not None:
            out = self.activate(self.bn(out))
        logits: Tensor = self.linear(pool(out))
        return logits
