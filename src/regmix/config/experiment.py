"""An experiment as a value."""

import shlex
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field
from torch import nn

from regmix.config.accumulation import check_accumulation
from regmix.config.augmentation import check_augmentations
from regmix.config.averaging import AveragingConfig, GatedEma, NoAveraging, Swa
from regmix.config.guard import Guard
from regmix.config.schedule import Constant, ScheduleConfig
from regmix.data import (
    Augmentations,
    ColourConfig,
    CropConfig,
    DataConfig,
    DataFunction,
    Digits,
    EraseConfig,
    ImageSet,
    MixConfig,
    NoColour,
    NoCrop,
    NoErasing,
    NoMix,
)
from regmix.data.balance import Balance
from regmix.data.size import format_size, height_and_width
from regmix.methods import DEFAULT_METHOD, METHODS, MethodConfig
from regmix.models import PRETRAINED, Function, ModelConfig, SmallCnn, Timm, Transformers, build
from regmix.runtime import devices
from regmix.threats import Linf, ThreatConfig
from regmix.types import Trust, UserError, brief, check_bounds, few, require

OnNonfinite = Literal["skip", "rollback", "stop"]


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run; recipes make these, config.json holds one."""

    data: Annotated[DataConfig, Field(discriminator="name")] = field(default_factory=Digits)
    """Source of the images."""
    model: Annotated[ModelConfig, Field(discriminator="name")] = field(default_factory=SmallCnn)
    """Network architecture."""
    threat: Annotated[ThreatConfig, Field(discriminator="name")] = field(default_factory=Linf)
    """Threat model: the set of allowed perturbations."""
    method: Annotated[MethodConfig, Field(discriminator="name")] = field(default_factory=DEFAULT_METHOD)
    """Training method."""
    schedule: Annotated[ScheduleConfig, Field(discriminator="name")] = field(default_factory=Constant)
    """Learning-rate schedule."""
    averaging: Annotated[AveragingConfig, Field(discriminator="name")] = field(default_factory=NoAveraging)
    """Moving average of the weights, stored in addition to the weights."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, summed over all processes."""
    accumulate: int = 1
    """Number of parts in which a step computes its batch, one after the other, to save memory. The gradient is the mean
    over the whole batch. BatchNorm, and a method that uses batch statistics, use those of each part."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer. sgd: with momentum; weight decay is added to the gradient. adamw: AdamW (arXiv 1711.05101); it
    multiplies weight decay by the learning rate, and 0.01 to 0.05 is usual."""
    lr: float = 0.1
    """Peak learning rate. SGD: 0.05 to 0.1 is usual. AdamW: about 0.001, to fine-tune 0.0001 to 0.0005."""
    momentum: float = 0.9
    """Momentum of SGD, or beta_1 of AdamW, in [0, 1)."""
    weight_decay: float = 5e-4
    """Weight decay, applied to the parameters that `decayed` selects."""
    decayed: Literal["all", "weights"] = "all"
    """Parameters with weight decay. all: every parameter, as public code of adversarial training does. weights: not
    biases and the factors of normalisation layers."""
    layer_decay: float = 1.0
    """Layer-wise learning rates for fine-tuning, in (0, 1]: a layer with n layers of weights after it has the learning
    rate times layer_decay to the power of n. 1 means the same rate for all layers."""
    ramp: float = 0.0
    """Share of the training, in [0, 1], in which eps and the regularisation terms of the loss rise linearly from near 0
    to their full size. Validation uses the full eps throughout."""
    ramp_of: Literal["all", "terms"] = "all"
    """What rises in the ramp: eps and the regularisation terms, or the terms alone."""
    init: str | None = None
    """Weights to start from: a file, a run directory (its best weights, after standard training its last ones),
    hf:OWNER/NAME for model.safetensors of a repository of the Hugging Face hub, or pretrained for the published weights
    of a timm or transformers model. If they are for another number of classes, the last layer is initialised randomly.
    None: random weights."""
    init_weights: str | None = None
    """Weights to use from an `init` that holds several sets of weights: raw, averaged, or the name of an entry."""
    freeze: tuple[str, ...] = ()
    """Names of parts of the model that are not trained and stay in evaluation mode, such as conv1 layers.0."""
    clip_norm: float | None = None
    """Largest Euclidean norm of a step's gradient; a longer gradient is scaled down to it. None: no clipping."""
    awp: float = 0.0
    """Size of the adversarial weight perturbation relative to each layer's weights (arXiv 2004.05884; published: 0.005
    with TRADES, 0.01 with PGD-AT). 0 turns it off. It doubles the cost of a step."""
    awp_warm_up: int = 0
    """Epochs to train before the weight perturbation starts (published: 10 with TRADES)."""
    label_mass: float = 1.0
    """Label smoothing: probability of the true class in the training labels, in (0, 1]. 1 means no smoothing."""
    label_rest: Literal["even", "random"] = "even"
    """How the other classes share the rest: evenly, or by random weights, drawn again in every step (as LIET's)."""
    pad: int = 0
    """Random crops: pad every side with this many zero pixels, then crop to the original size (CIFAR: 4). 0 means no
    crops."""
    flip: bool = False
    """Mirror each training image left to right with probability 1/2."""
    crop: Annotated[CropConfig, Field(discriminator="name")] = field(default_factory=NoCrop)
    """Random crops of another kind than those of --pad."""
    colour: Annotated[ColourConfig, Field(discriminator="name")] = field(default_factory=NoColour)
    """Random operations on the colours and shapes of the training images, after the crop."""
    erase: Annotated[EraseConfig, Field(discriminator="name")] = field(default_factory=NoErasing)
    """Random rectangles of the training images that are erased, after the colours."""
    mix: Annotated[MixConfig, Field(discriminator="name")] = field(default_factory=NoMix)
    """Mixtures of two training images and of their labels, after all else."""
    balance: Balance = "none"
    """How to treat classes of unequal size. loss: weight the classification loss of an image in inverse proportion to
    the size of its class. sampling: show every class equally often; in an epoch, images of small classes are repeated,
    and some images of large classes are left out. Validation and test images are not balanced."""
    normalise: bool = False
    """Normalise the input inside the model with the mean and standard deviation of the training images (of 10,000
    evenly spaced ones if images are streamed)."""
    train_examples: int | None = None
    """Number of training images, drawn evenly from the classes. None: all but the validation images."""
    validation: int | None = 1000
    """Number of training images held out for validation, or of images of val/ if --data folder has one beside test/.
    The checkpoint `best` is chosen on them. None: 15 % of the training images, or all of val/, but at most 1,000."""
    split_seed: int = 0
    """Seed that chooses the training and validation images. It is separate from --seed, so that seeds share a split."""
    validate_every: int = 1
    """Epochs from one validation to the next."""
    best_of: Literal["weights", "either"] = "weights"
    """Candidates for the checkpoint `best`. weights: the weights after each epoch. either: those and their moving
    average, whichever validates better."""
    guard: Guard = Guard()
    """Detection of catastrophic overfitting at each validation."""
    nonfinite: OnNonfinite = "skip"
    """What to do when the gradient of a step is infinite or NaN. skip: leave the step out. rollback: go back to the
    last saved epoch and leave the step out. stop: end the run. In all cases the run ends if this happens in a tenth of
    an epoch's steps."""
    sync_batchnorm: bool = False
    """With several processes (torchrun): compute BatchNorm statistics over the whole batch, not over each process's
    share."""
    shard_weights: bool = False
    """With several processes (torchrun): divide the weights, their momentum and their average among the processes
    (FSDP), for models too large for one device."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, the augmentation and the attacks' starting points."""
    device: devices.Device = "auto"
    """Device to train on. auto: a CUDA GPU if there is one, else the CPU."""
    precision: devices.Precision = "auto"
    """Arithmetic. bf16: bfloat16 autocast with float32 weights; a CPU without bf16 arithmetic computes layers in
    float32 and rounds, at nearly the speed of 32. 32: float32. 64: float64, for checks. auto: bf16 if the hardware
    computes the model in it correctly, else 32; a resumed run keeps its precision."""
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """Record the passes of a training step as a CUDA graph, and replay it. auto: on a GPU, if possible; else one line
    says why not. on: or end the run with that line; on a CPU it uses a slow substitute, for tests. off: never."""

    def __post_init__(self) -> None:
        _check_parts(self)
        for name in ("epochs", "batch_size", "validation", "validate_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}; it must be at least 1")
        require(self.epochs <= 10**6, f"epochs is {self.epochs}; it must not exceed 1,000,000")
        for name in ("pad", "seed", "split_seed", "weight_decay", "awp_warm_up"):
            require(0 <= getattr(self, name) < float("inf"), f"{name} is {getattr(self, name)}; it must be at least 0")
        size = getattr(self.data, "size", None)
        if size is not None:
            sides = height_and_width(size)
            fits = 1 <= min(sides) <= max(sides) <= 16_384
            require(fits, f"data size is {format_size(size)}; its sides must lie in 1..16,384 pixels")
        require(0 < self.lr < float("inf"), f"lr is {self.lr}; it must be positive")
        require(0 <= self.momentum < 1, f"momentum is {self.momentum}; it must lie in [0, 1)")
        require(self.clip_norm is None or self.clip_norm > 0, f"clip_norm is {self.clip_norm}; it must be positive")
        require(
            self.init is not None or self.init_weights is None,
            "init_weights chooses from a file of weights; name the file with --init",
        )
        require(
            self.init != PRETRAINED or isinstance(self.model, (Timm, Transformers)),
            f"--init {PRETRAINED} is for a model of timm or transformers, such as --model timm:resnet18.a1_in1k; for "
            "another model name the file of its weights",
        )
        require(
            self.init != PRETRAINED or not self.normalise,
            f"--init {PRETRAINED} brings the normalisation that the weights were trained with; leave out --normalise",
        )
        require(0 < self.layer_decay <= 1, f"layer_decay is {self.layer_decay}; it must lie in (0, 1]")
        require(0 <= self.ramp <= 1, f"ramp is {self.ramp}; it must lie in [0, 1]")
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
        check_accumulation(self.accumulate, self.batch_size, self.method, self.threat, self.averaging)
        check_augmentations(self.augmentations, self.pad, self.balance, self.method, self.threat)
        require(
            not (isinstance(self.averaging, Swa) and self.nonfinite == "rollback"),
            "averaging swa counts every step, and nonfinite rollback leaves steps out; use --nonfinite skip or "
            "--averaging ema",
        )
        if isinstance(self.averaging, GatedEma):
            known = " and ".join(name for name, method in METHODS.items() if method.reports_ratio)
            require(
                self.method.reports_ratio,
                f"gated_ema needs a ratio that {known} report, not {self.method.name}; use --averaging ema",
            )
            require(
                isinstance(self.mix, NoMix),
                f"gated_ema counts correct predictions, and images mixed by {self.mix.name} have no single class; use "
                "--averaging ema or --mix none",
            )

    @property
    def augmentations(self) -> Augmentations:
        """What is done to the training images beside padded crops and flips."""
        return Augmentations(self.crop, self.colour, self.erase, self.mix)

    @property
    def code_flags(self) -> list[str]:
        """The flags with which a command may run the user's own model and data."""
        named = {"--model.source": self.trust().named, "--data.source": self.trust().data}
        return [word for flag, source in named.items() if source is not None for word in (flag, source)]

    def resume_command(self, path: Path) -> str:
        """The command that continues a training of this experiment in its run directory."""
        return shlex.join(["regmix", "train", "--resume", str(path), *self.code_flags])

    def trust(self, *, everything: bool = False) -> Trust:
        """The code that a command may run when its own words name this model and these data."""
        return Trust(
            self.model.source if isinstance(self.model, Function) else None, everything,
            self.data.source if isinstance(self.data, DataFunction) else None,
        )  # fmt: skip

    @property
    def border(self) -> int:
        """Pixels around the training images that crops may look into."""
        return self.augmentations.border(self.pad)

    @property
    def part_size(self) -> int:
        """Images that pass through the network at once: `accumulate` divides a batch."""
        return -(-self.batch_size // self.accumulate)


def _check_parts(experiment: Experiment) -> None:
    """Raises UserError for a part that is of none of its kinds, such as a network itself, and for a number in one that
    is too large or too small for the arithmetic.
    """
    for part, kinds in UNIONS.items():
        if isinstance(value := getattr(experiment, part), tuple(kinds.values())):
            continue
        forms = few("one of its kinds, such as", (f"{kind.__name__}()" for kind in kinds.values()))
        if "function" in kinds:
            own = kinds["function"].__name__
            forms += f', or for your own {own}(source="module:NAME"), where NAME is a function that returns it'
        raise UserError(f"{part} is {brief(value)}; give {forms}")
    check_bounds(experiment)


UNIONS: dict[str, dict[str, type[Any]]] = {
    name: {variant.__dataclass_fields__["name"].default: variant for variant in get_args(hint)}
    for name, hint in get_type_hints(Experiment).items()
    if get_origin(hint) in (Union, UnionType) and all(map(is_dataclass, get_args(hint)))
}
"""The parts of an experiment that come in several kinds, and the kinds by their names."""


def build_model(experiment: Experiment, images: ImageSet) -> nn.Module:
    """The untrained model of an experiment, for images of this kind."""
    channels = images.shape[0]
    mean, std = [0.0] * channels, [1.0] * channels
    if experiment.normalise:
        mean, std = images.mean_and_deviation()
    return build(experiment.model, len(images.classes), channels, mean, std, images.shape[1:])
