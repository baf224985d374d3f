"""Networks for small images; they take images in [0, 1] and normalise inside."""

from collections.abc import Sequence

from torch import nn

from regmix.models.base import Normalise, require
from regmix.models.function import Function, materialise
from regmix.models.preact_resnet import PreActResNet
from regmix.models.resnet import ResNet
from regmix.models.small import SmallCnn
from regmix.models.state import load_weights
from regmix.models.wide_resnet import WideResNet
from regmix.types import UserError

ModelConfig = SmallCnn | ResNet | PreActResNet | WideResNet | Function

__all__ = ["Function", "ModelConfig", "PreActResNet", "ResNet", "SmallCnn", "WideResNet", "build", "load_weights"]


def build(
    config: ModelConfig,
    classes: int,
    channels: int = 3,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """The network, freshly initialised: images [B, channels, H, W] in [0, 1] to logits [B, classes].

    It computes (x - mean) / std first; mean and std hold one value per channel, or one for all of them. `size` is the
    height and width of the images, which lazy modules need to make their weights.
    Raises UserError for settings that do not exist.
    """
    require("the number of classes", classes)
    require("the number of channels", channels)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(f"{name} needs 1 or {channels} values for {channels} channels, got {len(values)}")
    if min(std) <= 0:
        raise UserError(f"std must be positive, got {', '.join(map(str, std))}")
    model = config.network(classes, Normalise(channels, mean, std))
    if size is not None:
        materialise(model, (channels, *size))
    return model
