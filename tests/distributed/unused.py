"""A model with a head that its output does not use."""

import torch.nn.functional as F
from torch import Tensor, nn


class Unused(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head, self.auxiliary = nn.Conv2d(1, 4, 3), nn.Linear(4, classes), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.silu(self.conv(x)).mean((2, 3)))


def make(classes: int) -> nn.Module:
    return Unused(classes)
