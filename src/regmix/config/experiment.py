"""An experiment as a value, and its text in config.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from regmix.config.averaging import AveragingConfig, GatedEma, NoAveraging
from regmix.config.guard import Guard
from regmix.config.schedule import Constant, ScheduleConfig
from regmix.data import DataConfig, Digits, ImageSet
from regmix.methods import DEFAULT_METHOD, METHODS, MethodConfig
from regmix.models import Function, ModelConfig, SmallCnn, build
from regmix.runtime import devices
from regmix.runtime.files import parse_json
from regmix.threats import Linf, ThreatConfig
from regmix.types import NO_TRUST, Trust, UserError, check_bounds, require

OnNonfinite = Literal["skip", "rollback", "stop"]


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run; recipes make these, config.json holds one."""

    data: Annotated[DataConfig, Field(discriminator="name")] = field(default_factory=Digits)
    """Where the images come from."""
    model: Annotated[ModelConfig, Field(discriminator="name")] = field(default_factory=SmallCnn)
    """The architecture."""
    threat: Annotated[ThreatConfig, Field(discriminator="name")] = field(default_factory=Linf)
    """The perturbations that the model shall resist."""
    method: Annotated[MethodConfig, Field(discriminator="name")] = field(default_factory=DEFAULT_METHOD)
    """How it is trained to."""
    schedule: Annotated[ScheduleConfig, Field(discriminator="name")] = field(default_factory=Constant)
    """The learning rate over time."""
    averaging: Annotated[AveragingConfig, Field(discriminator="name")] = field(default_factory=NoAveraging)
    """The average of the weights that is kept beside them."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, of all processes together."""
    lr: float = 0.1
    """Peak learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of SGD, on every parameter."""
    clip_norm: float | None = None
    """Scale the gradient of a step down to this Euclidean norm where it is longer; None: never."""
    awp: float = 0.0
    """Size of the adversarial weight perturbation relative to each layer's weights (arXiv 2004.05884; published 0.005
    with TRADES and 0.01 with PGD-AT; 0: none). Doubles the cost of a step."""
    awp_warm_up: int = 0
    """Epochs before the first one with a weight perturbation (published 10 with TRADES)."""
    label_mass: float = 1.0
    """Probability that the training labels give to the true class; the rest is spread evenly (1: no smoothing)."""
    pad: int = 0
    """Random crops out of a border of this many zero pixels on each side (CIFAR: 4)."""
    flip: bool = False
    """Mirror half of the training images from left to right."""
    normalise: bool = False
    """Subtract the training images' mean and divide by their deviation inside the model (those of 10,000 images,
    evenly spaced, where they are streamed)."""
    train_examples: int | None = None
    """Use this many training images, drawn evenly from the classes; None uses all but the validation images."""
    validation: int = 1000
    """Images held out of the training set; `best` is chosen on them."""
    split_seed: int = 0
    """Which images are held out and drawn; separate from seed, so that seeds share a split."""
    validate_every: int = 1
    """Epochs between validations."""
    best_of: Literal["weights", "either"] = "weights"
    """What may become `best`: the weights of an epoch, or those and their average, whichever validates better."""
    guard: Guard = Guard()
    """What watches for catastrophic overfitting at every validation."""
    nonfinite: OnNonfinite = "skip"
    """What follows a step whose gradient is infinite or NaN: it changes nothing; the run goes back to its last saved
    epoch and leaves the step out; or it ends. Whatever is chosen, it ends where a tenth of an epoch's steps are so."""
    sync_batchnorm: bool = False
    """Of several processes under torchrun: BatchNorm's statistics are those of the whole batch, not of each process's
    share of it."""
    shard_weights: bool = False
    """Of several processes under torchrun: each keeps a share of the weights, of their momentum and of their average,
    and borrows the rest while a layer runs (FSDP): for models too large for the memory of one device."""
    seed: int = 0
    """Seed of the weights, the order, the augmentation and the attacks' starts."""
    device: devices.Device = "auto"
    """Where to train: auto takes a CUDA GPU where there is one."""
    precision: devices.Precision = "auto"
    """auto and bf16: bfloat16 autocast with float32 weights; 32; 64 for checks."""

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("epochs", "batch_size", "validation", "validate_every"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        require(self.epochs <= 10**6, f"epochs is {self.epochs}; it must not exceed 1,000,000")
        for name in ("pad", "seed", "split_seed", "weight_decay", "awp_warm_up"):
            require(0 <= getattr(self, name) < float("inf"), f"{name} is {getattr(self, name)}; it must be at least 0")
        size = getattr(self.data, "size", None)
        require(size is None or 1 <= size <= 16_384, f"data size is {size}; it must lie in 1..16,384 pixels")
        require(0 < self.lr < float("inf"), f"lr is {self.lr}; it must be positive")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must lie in [0, 1)")
        require(self.clip_norm is None or self.clip_norm > 0, f"clip_norm is {self.clip_norm}; it must be positive")
        require(0 <= self.awp < 1, f"awp is {self.awp}; it must lie in [0, 1)")
        require(0 < self.label_mass <= 1, f"label_mass is {self.label_mass}; it must lie in (0, 1]")
        require(
            not (self.normalise and isinstance(self.model, Function)),
            "normalise has no effect on a model of your own, which normalises its input itself; leave out --normalise",
        )
        require(
            not (self.shard_weights and self.method.second_order),
            f"{self.method.name} takes second derivatives, which sharded weights do not give; leave out "
            "--shard-weights",
        )
        if isinstance(self.averaging, GatedEma):
            known = " and ".join(name for name, method in METHODS.items() if method.reports_ratio)
            require(
                self.method.reports_ratio,
                f"gated_ema needs a ratio that {known} report, not {self.method.name}; use --averaging ema",
            )


UNIONS: dict[str, dict[str, type[Any]]] = {
    name: {variant.__dataclass_fields__["name"].default: variant for variant in get_args(hint)}
    for name, hint in get_type_hints(Experiment).items()
    if name in ("data", "model", "threat", "method", "schedule", "averaging")
}
"""The parts of an experiment that come in several kinds, and the kinds by their names."""


def to_json(experiment: Experiment) -> str:
    """The text of config.json."""
    return json.dumps(asdict(experiment), indent=2) + "\n"


def from_json(text: str, source: str | Path = "config.json", trust: Trust = NO_TRUST) -> Experiment:
    """Reads config.json strictly: an unknown key, a wrong type or a wrong value is a UserError that names it.

    So is a model whose code the user has not allowed to run: the text may come from anybody.
    """
    tree = parse_json(text, source)
    try:
        experiment = TypeAdapter(Experiment).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: {where + ': ' if where else ''}{first['msg']}") from None
    if unknown := _keys(_without_retired(tree, source)) - _keys(asdict(experiment)):
        raise UserError(f"{source}: unknown key {min(unknown)}")
    if isinstance(experiment.model, Function):
        trust.check(experiment.model.source, Path(source).parent)
    return experiment


RETIRED = {
    "alpha_order": "final_initial", "beta_order": "initial_final", "gamma_order": "clean_final",
    "alpha_stop": "none", "beta_stop": "none", "gamma_stop": "none",
}  # fmt: skip
"""Settings that method.mutual had in regmix 0.1, and the values that it always has now."""


def _without_retired(tree: Mapping[str, Any], source: str | Path) -> Mapping[str, Any]:
    """The tree without settings of regmix 0.1 that are fixed now; raises UserError where one has another value."""
    mutual = tree.get("method", {}).get("mutual")
    if mutual is None:
        return tree
    for name, value in RETIRED.items():
        require(
            mutual.get(name, value) == value,
            f"{source}: method.mutual.{name} is {mutual.get(name)!r}, which only regmix 0.1 can train; set it to "
            f"{value!r}, or train anew with a method that has {name} itself",
        )
    return {**tree, "method": {**tree["method"], "mutual": {k: v for k, v in mutual.items() if k not in RETIRED}}}


def _keys(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for name, value in tree.items():
        keys |= _keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name}
    return keys


def build_model(experiment: Experiment, images: ImageSet) -> nn.Module:
    """The untrained model of an experiment, for images of this kind."""
    channels = images.shape[0]
    mean, std = [0.0] * channels, [1.0] * channels
    if experiment.normalise:
        mean, std = images.mean_and_deviation()
    return build(experiment.model, len(images.classes), channels, mean, std, images.shape[1:])
