"""What a training needs before it begins: images, an untrained model that can be trained, and devices."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from regmix.config import Experiment, NoAveraging, build_model, from_json
from regmix.data import ImageSet, NoColour, class_changes, load_training, pick, steps_per_epoch
from regmix.models import PRETRAINED, FromElsewhere, Timm, Transformers, load_weights
from regmix.runs import CONFIG, RESULT, Run
from regmix.runs.exported import ON_HUB, WEIGHTS, folder_of
from regmix.runtime import devices, processes
from regmix.runtime.bfloat16 import wrong_convolution
from regmix.runtime.borrowed import same_modes
from regmix.training.display import Display
from regmix.training.readiness import ready
from regmix.training.recorded import check_recordable
from regmix.training.validation import clean_accuracy
from regmix.types import Trust, UserError, few, require


class Prepared(NamedTuple):
    """What a session trains, on what, and where."""

    fabric: Fabric
    model: nn.Module
    train_set: ImageSet
    validation_set: ImageSet
    precision: Literal["32", "bf16", "64"]


def prepare(experiment: Experiment, display: Display) -> Prepared:
    """Reads the images, builds the model and checks that it can be trained. Writes nothing."""
    train_set, validation_set = training_data(experiment)
    model = initial_model(experiment, train_set)
    whole = False
    if experiment.init is not None:
        text, whole = _load_initial(model, experiment, train_set)
        display.note(text)
    precision, note = settled_precision(experiment, model, train_set)
    if note is not None:
        display.note(note)
    # Sharded weights average their gradients themselves. Whether a user's model leaves parameters unused may depend on
    # the images.
    fabric = devices.start(
        experiment.device, precision, together=not experiment.shard_weights,
        some_unused=isinstance(experiment.model, FromElsewhere),
    )  # fmt: skip
    check_recordable(experiment, fabric.device)
    for note in try_out(experiment, model, validation_set, fabric):
        display.note(note)
    if experiment.init is not None:
        _tell_accuracy(model, experiment, validation_set, fabric, display, whole=whole)
    return Prepared(fabric, model, train_set, validation_set, precision)


def settled_precision(
    experiment: Experiment, model: nn.Module, images: ImageSet
) -> tuple[Literal["32", "bf16", "64"], str | None]:
    """The precision to train in, and a line for the user where auto has to do without bfloat16.

    Raises:
        UserError: bfloat16 was asked for, and this machine computes the model wrongly in it.
    """
    device = torch.device(devices.chosen(experiment.device))
    precision = devices.resolved(experiment.precision, device)
    if precision != "bf16" or device.type != "cpu" or not devices.computes_in_bfloat16(device):
        return precision, None
    part = experiment.part_size
    most = experiment.method.at_once * -(-part // processes.started()[1])
    with same_modes(model):
        wrong = wrong_convolution(model, pick(images, torch.arange(most) % len(images), "cpu").x)
        if wrong is None:
            wrong = wrong_convolution(model.eval(), pick(images, torch.arange(part) % len(images), "cpu").x)
    if wrong is None:
        return precision, None
    text = f"in bfloat16 this CPU computes {wrong} wrongly"
    if experiment.precision == "bf16":
        raise UserError(f"{text}; begin a new run with --precision 32")
    return "32", f"{text}; the training computes in float32"


def training_data(experiment: Experiment) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and those held out for validation, which are kept in memory."""
    train_set, validation_set = load_training(
        experiment.data, experiment.train_examples, experiment.validation, experiment.split_seed
    )
    require(len(train_set.classes) >= 2, f"the images are all of one class, {train_set.classes[0]!r}; add another")
    fewest = 1 / len(train_set.classes)
    require(
        experiment.label_mass > fewest,
        f"label_mass is {experiment.label_mass:g}, the probability of the true class; of {len(train_set.classes)} "
        f"classes it must be more than {fewest:g} (label smoothing of 0.1 is a mass of 0.9)",
    )
    side = min(train_set.shape[1:])
    flag, border = "pad" if experiment.pad else "crop most", experiment.border
    require(border < side, f"{flag} is {border}; it must be less than the images' side, {side} pixels")
    require(
        isinstance(experiment.colour, NoColour) or train_set.shape[0] in (1, 3),
        f"--colour {experiment.colour.name} is for images of 1 or 3 channels, not {train_set.shape[0]}; leave it out",
    )
    return train_set, validation_set.resident()


def initial_model(experiment: Experiment, images: ImageSet) -> nn.Module:
    """The untrained model of an experiment, with the weights that its seed gives."""
    torch.manual_seed(experiment.seed)
    model = build_model(experiment, images)
    if other := [f"{name} ({p.dtype})" for name, p in model.named_parameters() if p.dtype != torch.float32]:
        raise UserError(f"the model's weights must be float32 to be trained, unlike {other[0]}; return model.float()")
    _freeze(model, experiment.freeze)
    _check_smallest_batch(experiment, model, images)
    return model.double() if experiment.precision == "64" else model


def initial_weights(experiment: Experiment) -> Path | None:
    """The file of weights that a training starts from; None for random weights, and for those of a library.

    Of a run directory these are the best weights, but the last ones after standard training, which nothing had to
    choose, and where there are no best weights yet.

    Raises:
        UserError: the best weights of a finished run were removed.
    """
    if experiment.init in (None, PRETRAINED):
        return None
    path = folder_of(experiment.init)
    if not path.is_dir():
        return path
    if experiment.init.startswith(ON_HUB) or (path / WEIGHTS).is_file():  # the second: exported
        return path / WEIGHTS
    run = Run.open(path, writes=False)
    settings = from_json(run.config(), path / CONFIG, Trust(everything=True))  # only read, not built
    attacked = settings.method.adversarial and run.environment().source is None
    if attacked and (gone := run.without_best()):
        raise UserError(f"{gone}, or start from the last ones: --init {run.weights('last')}")
    return run.weights("best" if attacked and "best" in run.checkpoints() else "last")


def _load_initial(model: nn.Module, experiment: Experiment, images: ImageSet) -> tuple[str, bool]:
    """Loads the weights to start from; returns what was loaded, and whether the last layer was, too."""
    config = experiment.model
    if experiment.init == PRETRAINED:
        assert isinstance(config, (Timm, Transformers)), "the experiment has checked it"
        state = config.published(images.shape[0])
        loaded = load_weights(model, state, None, len(images.classes))
        return f"pretrained weights: {loaded.summary()}", not loaded.anew
    path = initial_weights(experiment)
    assert path is not None
    computed = [buffer.clone() for buffer in _normalisation(model)] if experiment.normalise else []
    try:
        loaded = load_weights(model, path, experiment.init_weights, len(images.classes))
    except UserError as error:
        raise UserError(str(error).replace("--weights", "--init-weights")) from None
    if not all(map(torch.equal, computed, _normalisation(model))):
        raise UserError(
            f"{path} brings the normalisation that its weights were trained with, which is not that of these images; "
            "leave out --normalise"
        )
    return f"weights to start from: {loaded.summary()}{_other_classes(path.parent, images)}", not loaded.anew


def _tell_accuracy(
    model: nn.Module, experiment: Experiment, images: ImageSet, fabric: Fabric, display: Display, *, whole: bool
) -> None:
    """Says how good the weights to start from are on the validation images, without an attack.

    Args:
        whole: the last layer was loaded, so that no better than chance is a sign of a mistake.
    """
    share = clean_accuracy(fabric, model, images, experiment.threat, experiment.part_size)
    most = int(images.labels.bincount().max()) / len(images)
    display.note(
        f"before the training they classify {100 * share:.1f}% of the {len(images):,} validation images correctly, "
        "without an attack"
    )
    if whole and share <= most + (most * (1 - most) / len(images)) ** 0.5:
        display.warn(
            f"the weights to start from are no better than chance (the largest class has {100 * most:.1f}% of the "
            "validation images); does the model normalise its input as it did when they were trained, and are its "
            "classes in the sorted order of the folders?"
        )


def _normalisation(model: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in model.named_buffers() if name.startswith("normalise.")]


def _other_classes(folder: Path, images: ImageSet) -> str:
    """A remark where the weights are those of a run with as many classes, but others or in another order."""
    if not (folder / RESULT).is_file():
        return ""
    theirs = tuple(Run.open(folder, writes=False).result().classes or ())
    if len(theirs) != len(images.classes) or not (text := class_changes(theirs, images.classes)):
        return ""
    return f"; the classes are other ones ({text}), so the last layer begins with what it learned about those"


def _freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Keeps the named parts from being trained, statistics of BatchNorm included."""
    parts = dict(model.named_modules())
    if names and not model.training:  # it would be trained as a whole, and the frozen parts with it
        model.train()
    for name in names:
        if not name or name not in parts:
            inner = few("it has", [part for part in parts if part and part.count(".") < 2])
            raise UserError(f"--freeze {name}: the model has no part of this name; {inner}")
        parts[name].requires_grad_(False).eval()
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"--freeze {' '.join(names)} leaves nothing to train; freeze fewer parts")


def try_out(experiment: Experiment, model: nn.Module, images: ImageSet, fabric: Fabric) -> list[str]:
    """Moves a model to the device of the training, and tries it there on two images; see `ready`."""
    two = pick(images, torch.arange(2) % len(images), "cpu")
    sharded = experiment.shard_weights and processes.size() > 1
    averaged = not isinstance(experiment.averaging, NoAveraging)
    return ready(
        model, two.x, two.y, len(images.classes), fabric, copied=averaged or sharded, whole=not sharded,
        features=experiment.method.needs_features,
    )  # fmt: skip


def _check_smallest_batch(experiment: Experiment, model: nn.Module, images: ImageSet) -> None:
    """Raises UserError where BatchNorm would see a single number per channel, which has no variance."""
    count = processes.started()[1]
    batch = len(images) // steps_per_epoch(len(images), experiment.batch_size, count)
    parts = min(experiment.accumulate, batch // count)
    if (batch // parts if experiment.sync_batchnorm else batch // count // parts) > 1:
        return
    try:
        copy.deepcopy(model).train()(torch.zeros(1, *images.shape))
    except Exception as error:  # other faults of the model are found by `ready`
        if "more than 1 value per channel" in str(error):
            in_parts = f" of {parts} parts (--accumulate)" if parts > 1 else ""
            raise UserError(
                f"{len(images)} training images in batches of {experiment.batch_size}{in_parts} leave a batch of one "
                "image, of which BatchNorm cannot learn; give another --batch-size or --train-examples"
            ) from None
