"""An experiment as a value, its text in config.json, and its training into a run directory."""

import copy
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import torch
from lightning_fabric import Fabric
from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from regmix import processes
from regmix.data import (
    DataConfig,
    Digits,
    ImageSet,
    changes,
    class_changes,
    fingerprint,
    load,
    pick,
    split_train,
    steps_per_epoch,
)
from regmix.methods import FgsmPgk, GradAlign, MethodConfig, RegMix
from regmix.models import Function, ModelConfig, SmallCnn, build
from regmix.runs import CONFIG, Run, parse_json
from regmix.runs.records import Data
from regmix.threats import Linf, ThreatConfig
from regmix.training import AveragingConfig, Constant, GatedEma, NoAveraging, ScheduleConfig, engine
from regmix.training.guard import Guard
from regmix.training.loop import train
from regmix.training.plan import Display, OnNonfinite, Plan
from regmix.training.readiness import ready
from regmix.types import NO_TRUST, Interrupted, Trust, UserError, check_bounds, require
from regmix.version import __version__


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run; recipes make these, config.json holds one."""

    data: Annotated[DataConfig, Field(discriminator="name")] = field(default_factory=Digits)
    """Where the images come from."""
    model: Annotated[ModelConfig, Field(discriminator="name")] = field(default_factory=SmallCnn)
    """The architecture."""
    threat: Annotated[ThreatConfig, Field(discriminator="name")] = field(default_factory=Linf)
    """The perturbations that the model shall resist."""
    method: Annotated[MethodConfig, Field(discriminator="name")] = field(default_factory=RegMix)
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
    device: engine.Device = "auto"
    """Where to train: auto takes a CUDA GPU where there is one."""
    precision: engine.Precision = "auto"
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
            not (self.shard_weights and isinstance(self.method, GradAlign)),
            "grad_align takes second derivatives, which sharded weights do not give; leave out --shard-weights",
        )
        if isinstance(self.averaging, GatedEma):
            require(
                isinstance(self.method, FgsmPgk | RegMix),
                f"gated_ema needs a ratio that fgsm_pgk and regmix report, not {self.method.name}; use --averaging ema",
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


def from_json(text: str, source: str | Path = CONFIG, trust: Trust = NO_TRUST) -> Experiment:
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
    if unknown := _keys(tree) - _keys(asdict(experiment)):
        raise UserError(f"{source}: unknown key {min(unknown)}")
    if isinstance(experiment.model, Function):
        trust.check(experiment.model.source, Path(source).parent)
    return experiment


def _keys(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for name, value in tree.items():
        keys |= _keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name}
    return keys


def run(experiment: Experiment, out: Path, display: Display, command: str = "") -> Run:
    """Trains an experiment into a new run directory.

    Raises:
        UserError: anything that the user can mend, before the directory is made where possible.
    """
    fabric, model, train_set, validation_set = _prepare(experiment, display)
    if processes.rank() == 0:
        Run.create(out, to_json(experiment), _environment(fabric, command))
    processes.from_first("it is there")
    directory = Run.open(out, writes=processes.rank() == 0)
    return _train(experiment, directory, fabric, model, train_set, validation_set, display)


def resume(path: Path, display: Display, trust: Trust = NO_TRUST) -> Run:
    """Continues a run from its last saved state; ends as it would have ended without the interruption.

    Raises:
        UserError: anything that the user can mend, such as a model whose code is not trusted.
    """
    directory = Run.open(path, writes=processes.started()[0] == 0)
    experiment = from_json(directory.config(), path / CONFIG, trust)
    return _train(experiment, directory, *_prepare(experiment, display), display)


def _prepare(experiment: Experiment, display: Display) -> tuple[Fabric, nn.Module, ImageSet, ImageSet]:
    train_set, validation_set = training_data(experiment)
    model = initial_model(experiment, train_set)
    # Sharded weights average their gradients themselves. Whether a model of somebody else's leaves parameters unused
    # may depend on the images.
    fabric = engine.start(
        experiment.device, experiment.precision, together=not experiment.shard_weights,
        some_unused=isinstance(experiment.model, Function),
    )  # fmt: skip
    for line in try_out(experiment, model, validation_set, fabric):
        display.note(line)
    return fabric, model, train_set, validation_set


def try_out(experiment: Experiment, model: nn.Module, images: ImageSet, fabric: Fabric) -> list[str]:
    """Moves a model to where it is trained, and tries it there on two images; see `training.readiness`."""
    few = pick(images, torch.arange(2) % len(images), "cpu")
    apart = experiment.shard_weights and processes.size() > 1
    averaged = not isinstance(experiment.averaging, NoAveraging)
    return ready(model, few.x, few.y, len(images.classes), fabric, copied=averaged or apart, whole=not apart)


def training_data(experiment: Experiment) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and those held out for validation, which lie in memory."""
    train_set, validation_set = split_train(
        load(experiment.data, "train"), experiment.train_examples, experiment.validation, experiment.split_seed
    )
    require(len(train_set.classes) >= 2, f"the images are all of one class, {train_set.classes[0]!r}; add another")
    side = min(train_set.shape[1:])
    require(experiment.pad < side, f"pad is {experiment.pad}; it must be less than the images' side, {side} pixels")
    return train_set, validation_set.resident()


def initial_model(experiment: Experiment, images: ImageSet) -> nn.Module:
    """The model with which the training of these images begins."""
    torch.manual_seed(experiment.seed)
    model = build_model(experiment, images)
    if other := [f"{name} ({one.dtype})" for name, one in model.named_parameters() if one.dtype != torch.float32]:
        raise UserError(f"the model's weights must be float32 to be trained, unlike {other[0]}; return model.float()")
    _check_smallest_batch(experiment, model, images)
    return model.double() if experiment.precision == "64" else model


def _check_smallest_batch(experiment: Experiment, model: nn.Module, images: ImageSet) -> None:
    """Raises UserError where BatchNorm would meet a single number per channel, of which it has no variance."""
    count = processes.started()[1]
    batch = len(images) // steps_per_epoch(len(images), experiment.batch_size, count)
    if (batch if experiment.sync_batchnorm else batch // count) > 1:
        return
    try:
        copy.deepcopy(model).train()(torch.zeros(1, *images.shape))
    except Exception as error:  # what else is wrong with the model is not found out here
        if "more than 1 value per channel" in str(error):
            raise UserError(
                f"{len(images)} training images in batches of {experiment.batch_size} leave a batch of one image, of "
                "which BatchNorm cannot learn; give another --batch-size or --train-examples"
            ) from None


def _train(
    experiment: Experiment,
    directory: Run,
    fabric: Fabric,
    model: nn.Module,
    train_set: ImageSet,
    validation_set: ImageSet,
    display: Display,
) -> Run:
    if (count := processes.size()) > 1:
        display.note(
            f"{count} processes share every batch of {experiment.batch_size} images; the peak learning rate is "
            f"{experiment.lr:g}, whatever their number"
        )
    for note in train_set.notes:
        display.note(note)
    plan = Plan(**{name: getattr(experiment, name) for name in Plan.__dataclass_fields__})
    with directory.claim(), _naming_code(experiment):
        now = Data(fingerprint(train_set), fingerprint(validation_set), [*train_set.notes])
        _recognise(directory, now, train_set, display)
        directory.update_result({"classes": list(train_set.classes), "shape": list(train_set.shape)})
        summary = train(fabric, model, plan, train_set, validation_set, directory, display)
    # A resumed run has the peaks of several processes.
    peaks = [directory.result().peak_memory, engine.peak_memory(fabric.device)]
    peak = max((peak for peak in peaks if peak is not None), default=None)
    directory.update_result({**summary, "peak_memory": peak})
    return directory


def _recognise(directory: Run, now: Data, images: ImageSet, display: Display) -> None:
    """Notes the images of a new run; raises UserError if a run that goes on has others than it began with.

    With other images the held-out ones would be others, too: what was trained on could become validation.
    """
    known, facts = directory.data(), directory.result()
    if known is None:
        text = class_changes(tuple(facts.classes), images.classes) if facts.classes else ""
        before = text and f"the classes have changed: {text}"
    else:
        before = changes(known.train, now.train) or changes(known.validation, now.validation)
        if known.train.times != now.train.times and not before:
            display.warn("the files of the images were written again since the run began; names and sizes agree")
    if before:
        raise UserError(
            f"the images have changed since {directory.path} began: {before}; put them back, or start a new run"
        )
    if known is None:
        directory.save_data(now)


@contextmanager
def _naming_code(experiment: Experiment) -> Iterator[None]:
    """The command that continues an interrupted training names the code that it needs."""
    try:
        yield
    except Interrupted as interrupted:
        if isinstance(experiment.model, Function) and interrupted.saved:
            interrupted.saved += f" --model.source {experiment.model.source}"
        raise


def build_model(experiment: Experiment, images: ImageSet) -> nn.Module:
    """The untrained model of an experiment, for images of this kind."""
    channels = images.shape[0]
    mean, std = [0.0] * channels, [1.0] * channels
    if experiment.normalise:
        mean, std = images.mean_and_deviation()
    return build(experiment.model, len(images.classes), channels, mean, std, images.shape[1:])


def _environment(fabric: Fabric, command: str) -> dict[str, object]:
    cuda = fabric.device.type == "cuda"
    return {
        "regmix": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(fabric.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes.size(),
        "git_commit": git_commit(),
        "command": command or " ".join(sys.argv),
    }


def git_commit(package: Path = Path(__file__).parent) -> str | None:
    """The commit of this package's own checkout, ending in -dirty if its source has been changed since.

    None where the package lies elsewhere: in a folder of installed packages, whatever repository that is part of.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) / "src" / package.name != package.resolve():
            return None
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
