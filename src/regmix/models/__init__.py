"""Networks for small images, which take images in [0, 1] and normalise inside, and readers of weights for any model."""

import os
from collections.abc import Sequence

import torch
from torch import nn

from regmix.models.base import Architecture, Normalise, require
from regmix.models.black_box import ONNX, Answers, BlackBox
from regmix.models.code import changed_code, code_files, users_code
from regmix.models.function import Function, materialise
from regmix.models.libraries import PRETRAINED, Timm, Transformers
from regmix.models.preact_resnet import PreActResNet
from regmix.models.resnet import ResNet
from regmix.models.small import SmallCnn
from regmix.models.state import load_weights
from regmix.models.wide_resnet import WideResNet
from regmix.types import LEAST, MOST, UserError

ModelConfig = SmallCnn | ResNet | PreActResNet | WideResNet | Timm | Transformers | Function | BlackBox
FromElsewhere = Timm | Transformers | Function
"""Networks whose code is not this package's: nothing is known of what they compute."""

__all__ = [
    "ONNX",
    "PRETRAINED",
    "Answers",
    "BlackBox",
    "FromElsewhere",
    "Function",
    "ModelConfig",
    "PreActResNet",
    "ResNet",
    "SmallCnn",
    "Timm",
    "Transformers",
    "WideResNet",
    "build",
    "changed_code",
    "code_files",
    "load_weights",
    "users_code",
]


def build(
    config: ModelConfig,
    classes: int,
    channels: int = 3,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """Builds a freshly initialised network: images [B, channels, H, W] in [0, 1] to logits [B, classes].

    Args:
        mean: one value per channel, or one for all; the network first computes (x - mean) / std.
        std: like `mean`.
        size: height and width of the images; lazy modules need it to create their weights.

    Raises:
        UserError: a setting is invalid, or the network does not fit into memory.
    """
    require("the number of classes", classes)
    require("the number of channels", channels)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(f"{name} needs 1 or {channels} values for {channels} channels, got {len(values)}")
    if not all(LEAST <= value <= MOST for value in std):
        raise UserError(f"std must be positive, in [{LEAST:g}, {MOST:g}], got {', '.join(map(str, std))}")
    if not all(abs(value) <= MOST for value in mean):
        raise UserError(f"mean must lie in [-{MOST:g}, {MOST:g}], got {', '.join(map(str, mean))}")
    if not isinstance(config, FromElsewhere):
        _check_memory(config, classes, channels)
    model = config.network(classes, Normalise(channels, mean, std))
    if size is not None:
        materialise(model, (channels, *size))
    return model


def _check_memory(config: Architecture, classes: int, channels: int) -> None:
    """Raises UserError for a network whose weights alone exceed the memory of this machine."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    with torch.device("meta"):  # takes no memory and draws no random numbers
        network = config.network(classes, Normalise(channels, (0.0,), (1.0,)))
    needed = sum(weight.numel() * weight.element_size() for weight in network.parameters())
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UserError(
            f"the weights of this network need {needed / 2**30:,.0f} GiB, but this machine has "
            f"{available / 2**30:,.0f}; choose a smaller width"
        )
