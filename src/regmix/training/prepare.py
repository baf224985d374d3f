"""What a training needs before it begins: images, an untrained model that can be trained, and devices."""

import copy
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from regmix.config import Experiment, NoAveraging, build_model
from regmix.data import ImageSet, load, pick, split_train, steps_per_epoch
from regmix.models import Function
from regmix.runtime import devices, processes
from regmix.training.display import Display
from regmix.training.readiness import ready
from regmix.types import UserError, require


class Prepared(NamedTuple):
    """What a session trains, on what, and where."""

    fabric: Fabric
    model: nn.Module
    train_set: ImageSet
    validation_set: ImageSet


def prepare(experiment: Experiment, display: Display) -> Prepared:
    """Reads the images, builds the model and checks that it can be trained. Writes nothing."""
    train_set, validation_set = training_data(experiment)
    model = initial_model(experiment, train_set)
    # Sharded weights average their gradients themselves. Whether a user's model leaves parameters unused may depend on
    # the images.
    fabric = devices.start(
        experiment.device, experiment.precision, together=not experiment.shard_weights,
        some_unused=isinstance(experiment.model, Function),
    )  # fmt: skip
    for note in try_out(experiment, model, validation_set, fabric):
        display.note(note)
    return Prepared(fabric, model, train_set, validation_set)


def training_data(experiment: Experiment) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and those held out for validation, which are kept in memory."""
    train_set, validation_set = split_train(
        load(experiment.data, "train"), experiment.train_examples, experiment.validation, experiment.split_seed
    )
    require(len(train_set.classes) >= 2, f"the images are all of one class, {train_set.classes[0]!r}; add another")
    side = min(train_set.shape[1:])
    require(experiment.pad < side, f"pad is {experiment.pad}; it must be less than the images' side, {side} pixels")
    return train_set, validation_set.resident()


def initial_model(experiment: Experiment, images: ImageSet) -> nn.Module:
    """The untrained model of an experiment, with the weights that its seed gives."""
    torch.manual_seed(experiment.seed)
    model = build_model(experiment, images)
    if other := [f"{name} ({p.dtype})" for name, p in model.named_parameters() if p.dtype != torch.float32]:
        raise UserError(f"the model's weights must be float32 to be trained, unlike {other[0]}; return model.float()")
    _check_smallest_batch(experiment, model, images)
    return model.double() if experiment.precision == "64" else model


def try_out(experiment: Experiment, model: nn.Module, images: ImageSet, fabric: Fabric) -> list[str]:
    """Moves a model to the device of the training, and tries it there on two images; see `ready`."""
    few = pick(images, torch.arange(2) % len(images), "cpu")
    sharded = experiment.shard_weights and processes.size() > 1
    averaged = not isinstance(experiment.averaging, NoAveraging)
    return ready(model, few.x, few.y, len(images.classes), fabric, copied=averaged or sharded, whole=not sharded)


def _check_smallest_batch(experiment: Experiment, model: nn.Module, images: ImageSet) -> None:
    """Raises UserError where BatchNorm would see a single number per channel, which has no variance."""
    count = processes.started()[1]
    batch = len(images) // steps_per_epoch(len(images), experiment.batch_size, count)
    if (batch if experiment.sync_batchnorm else batch // count) > 1:
        return
    try:
        copy.deepcopy(model).train()(torch.zeros(1, *images.shape))
    except Exception as error:  # other faults of the model are found by `ready`
        if "more than 1 value per channel" in str(error):
            raise UserError(
                f"{len(images)} training images in batches of {experiment.batch_size} leave a batch of one image, of "
                "which BatchNorm cannot learn; give another --batch-size or --train-examples"
            ) from None
