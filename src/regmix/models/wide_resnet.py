"""Wide ResNet for small images."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from torch import Tensor, nn

from regmix.models.base import ACTIVATIONS, Activation, Architecture, Normalise, conv3x3, pool, require, stage
from regmix.types import Tag, UserError


@dataclass(frozen=True)
class WideResNet(Architecture):
    """WideResNet-depth-widen without dropout: first convolution of 16 channels, stages of 16, 32 and 64 times `widen`.

    WideResNet-34-10 with 10 classes has 46,160,474 parameters. Their names (conv1, block1.layer.0.convShortcut, bn1,
    fc) and initialisation (convolutions normal with variance 2 / (k^2 outputs)) are those of TRADES and RobustBench,
    without the unused sub_block1 of TRADES. Source: arXiv 1605.07146.

    Raises:
        UserError: the depth is not 6 n + 4.
    """

    name: Tag[Literal["wide_resnet"]] = field(default="wide_resnet", kw_only=True)
    depth: int = 34
    """Layers with weights, 6 n + 4: 10, 16, 22, 28, 34, ..."""
    widen: int = 10
    """Factor on the channels of the three stages."""
    activation: Activation = "relu"
    """Function between layers. silu, gelu and softplus are smooth, which can help robustness (arXiv 2010.00467)."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        blocks, rest = divmod(self.depth - 4, 6)
        if blocks < 1 or rest:
            raise UserError(f"WideResNet depth {self.depth} does not exist; choose one of 10, 16, 22, 28, 34, ...")
        require("WideResNet widen", self.widen)
        return WideResidualNetwork(blocks, self, classes, normalise)


class WideBlock(nn.Module):
    """conv(act(bn(conv(a)))) + x with a = act(bn(x)); where the shape changes, + convShortcut(a) instead of x."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[activation]
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut: nn.Module | None = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(self.bn1(x))
        residual = x if self.convShortcut is None else self.convShortcut(activated)
        out: Tensor = self.conv2(self.activate(self.bn2(self.conv1(activated))))
        return out + residual


class WideStage(nn.Module):
    """A stage under the name `layer`, to match the public parameter names."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.layer = stage(partial(WideBlock, activation=activation), blocks, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResidualNetwork(nn.Module):
    """First convolution, three stages, BatchNorm and activation, global average pool, linear layer."""

    def __init__(self, blocks: int, config: WideResNet, classes: int, normalise: Normalise) -> None:
        super().__init__()
        widen, activation = config.widen, config.activation
        self.activate = ACTIVATIONS[activation]
        self.normalise = normalise
        self.conv1 = conv3x3(normalise.channels, 16)
        self.block1 = WideStage(blocks, 16, 16 * widen, stride=1, activation=activation)
        self.block2 = WideStage(blocks, 16 * widen, 32 * widen, stride=2, activation=activation)
        self.block3 = WideStage(blocks, 32 * widen, 64 * widen, stride=2, activation=activation)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(self.normalise(x)))))
        logits: Tensor = self.fc(pool(self.activate(self.bn1(out))))
        return logits
