"""The network and the sizes with which public code and this package are compared."""

from typing import Any

from torch import Tensor, nn

CLASSES, SIZE, BATCH, FEATURES = 10, 32, 8, 512
IMAGES = BATCH * 3 * SIZE * SIZE
"""Numbers in a batch of images."""


class Net(nn.Module):
    """A smooth network with BatchNorm and 512 features, on images [B, 3, 32, 32].

    Where public code wants features it calls forward(x, feature_layer=4), or has pairs (logits, features) returned.
    """

    def __init__(self, pairs: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Softplus(), nn.Flatten())
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.pairs = pairs

    def forward(self, x: Tensor, feature_layer: int | None = None) -> Any:
        features = self.body(x)
        if feature_layer is not None:
            return features
        logits = self.linear(features)
        return (logits, features) if self.pairs else logits
