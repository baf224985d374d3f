"""The generator of FGSM-SDI: a small convolutional network."""

import math
from functools import cache

from torch import Tensor, nn

from regmix.methods.learned import Learned

RATE, WEIGHT_DECAY, WIDTH = 0.001, 5e-4, 64


class _Residual(nn.Module):
    """x + a residual of two convolutions, each behind BatchNorm without weights and PReLU."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2)]
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight, math.sqrt(2))
        behind = [[nn.BatchNorm2d(WIDTH, affine=False), nn.PReLU(), convolution] for convolution in convolutions]
        self.residual = nn.Sequential(*behind[0], *behind[1])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.residual(x) + x
        return y


@cache
def generator(channels: int) -> Learned:
    """The generator's outline: images and directions [B, 2 channels, H, W] to [B, channels, H, W], before the tanh."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2 * channels, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH, eps=0.001), nn.ReLU(),
            _Residual(), nn.BatchNorm2d(WIDTH, affine=False), nn.Conv2d(WIDTH, channels, 3, padding=1),
        )  # fmt: skip

    return Learned(build, rate=RATE, weight_decay=WEIGHT_DECAY)
