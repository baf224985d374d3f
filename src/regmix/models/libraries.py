"""Networks of other libraries: timm and transformers. Each library is imported when a model of it is named."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from regmix.models.base import Normalise
from regmix.models.function import only_logits
from regmix.types import Tag, UserError

T = TypeVar("T")
PRETRAINED = "pretrained"
"""The `init` of an experiment that starts from the weights that the library has for its network."""

NO_SCALING = (
    "rescale_offset", "include_top", "do_flip_channel_order", "do_grayscale", "do_color_quantize",
)  # fmt: skip
"""What an image processor may do to the values of pixels besides scaling and normalising each channel."""


@dataclass(frozen=True)
class Timm:
    """A network of timm. Also written --model timm:NAME. It normalises its input itself."""

    name: Tag[Literal["timm"]] = field(default="timm", kw_only=True)
    architecture: str = ""
    """Its name in timm, such as resnet18 or vit_tiny_patch16_224. With `--init pretrained` the name chooses the
    weights too, such as resnet18.a1_in1k."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        timm = _library("timm")
        model = _made(
            f"timm:{self.architecture}",
            lambda: timm.create_model(self.architecture, num_classes=classes, in_chans=normalise.channels),
        )
        return _normalised(model, normalise)

    def published(self, channels: int) -> dict[str, Tensor]:
        """The weights that timm has for the architecture, with their normalisation; downloaded if not kept."""
        timm = _library("timm")
        model = _made(f"timm:{self.architecture}", lambda: timm.create_model(self.architecture, pretrained=True))
        settings = model.pretrained_cfg
        return _with_normalisation(model, channels, settings["mean"], settings["std"])


@dataclass(frozen=True)
class Transformers:
    """An image classifier of Hugging Face transformers. Also written --model hf:NAME. It normalises its input itself.

    Code in the repository is never run.
    """

    name: Tag[Literal["transformers"]] = field(default="transformers", kw_only=True)
    repository: str = ""
    """A repository of the hub, such as google/vit-base-patch16-224, or a folder with its config.json."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        transformers = _library("transformers")

        def make() -> nn.Module:
            config = transformers.AutoConfig.from_pretrained(self.repository, num_labels=classes)
            config.num_channels = normalise.channels
            model: nn.Module = transformers.AutoModelForImageClassification.from_config(config, dtype=torch.float32)
            return model

        return _normalised(_made(f"hf:{self.repository}", make), normalise)

    def published(self, channels: int) -> dict[str, Tensor]:
        """The weights of the repository, with the normalisation in its preprocessor_config.json."""
        transformers = _library("transformers")
        auto = transformers.AutoModelForImageClassification
        model = _made(f"hf:{self.repository}", lambda: auto.from_pretrained(self.repository, dtype=torch.float32))
        mean, std = _made(f"hf:{self.repository}", lambda: _normalisation(transformers, self.repository))
        return _with_normalisation(model, channels, mean, std)

    def class_names(self) -> list[str]:
        """The names of the outputs in its config.json, or LABEL_0, LABEL_1, ... where it has none."""
        config = _made(
            f"hf:{self.repository}", lambda: _library("transformers").AutoConfig.from_pretrained(self.repository)
        )
        return [str(name) for _, name in sorted(config.id2label.items())]


def _normalisation(transformers: Any, repository: str) -> tuple[list[float], list[float]]:
    """Mean and deviation that do to images in [0, 1] what preprocessor_config.json does to whole grey levels.

    Raises:
        ValueError: it does not say what is needed, or something that is no scaling of each channel.
    """
    kept, _ = transformers.ImageProcessingMixin.get_image_processor_dict(repository)
    if other := [name for name in NO_SCALING if kept.get(name)]:
        raise ValueError(f"preprocessor_config.json says {other[0]}, which is not supported")
    mean, std = [0.0], [1.0]
    if kept.get("do_normalize", True):
        missing = {"image_mean", "image_std"} - kept.keys()
        if missing:
            raise ValueError(f"preprocessor_config.json does not say {' and '.join(sorted(missing))}")
        mean, std = (
            [*map(float, kept[name])] if isinstance(kept[name], list) else [float(kept[name])]
            for name in ("image_mean", "image_std")
        )
    factor = float(kept.get("rescale_factor", 1 / 255)) if kept.get("do_rescale", True) else 1.0
    return [value / (255 * factor) for value in mean], [value / (255 * factor) for value in std]


def _library(name: str) -> Any:
    """Imports a library. Raises UserError with what to install."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a torchvision for another torch raises RuntimeError
        cause = " ".join(str(error).split())
        if "torchvision" in cause:
            torchvision = f"the torchvision that fits torch {torch.__version__} (see pytorch.org/get-started)"
            raise UserError(f"{name} needs torchvision; install {torchvision} ({cause})") from error
        raise UserError(f'a model of {name} needs {name}: pip install "regmix[models]" ({cause})') from error


def _made(title: str, make: Callable[[], T]) -> T:
    """What a library makes. Raises UserError with the first line of its error."""
    if title.endswith(":"):
        raise UserError(f"name the model, as in --model {title}NAME")
    try:
        return make()
    except Exception as error:  # libraries have many kinds
        cause = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{title} cannot be made: {cause}") from error


def _with_normalisation(
    model: nn.Module, channels: int, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Tensor]:
    return {**model.state_dict(), **Normalise(channels, mean, std).state_dict(prefix="normalise.")}


def _normalised(model: nn.Module, normalise: Normalise) -> nn.Module:
    """The model with a normalisation of its input, and with logits alone as output."""
    # Hooks, because a wrapper module would add a prefix to the names of the weights.
    model.normalise = normalise
    model.register_forward_pre_hook(_normalise_input)
    model.register_forward_hook(only_logits)
    return model


def _normalise_input(model: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x, *others = inputs
    return model.normalise(x), *others
