"""Begins or resumes the training of an experiment in its run directory."""

import copy
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from regmix.config import Experiment, NoAveraging, build_model, from_json, to_json
from regmix.data import (
    ImageSet,
    changes,
    class_changes,
    fingerprint,
    load,
    pick,
    split_train,
    steps_per_epoch,
)
from regmix.models import Function
from regmix.runs import CONFIG, RESULT, Run
from regmix.runs.files import typed
from regmix.runs.records import Data, Environment, Result
from regmix.runtime import devices, processes
from regmix.training.loop import train
from regmix.training.plan import Display, Plan
from regmix.training.readiness import ready
from regmix.types import NO_TRUST, Interrupted, Trust, UserError, require
from regmix.version import __version__


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
    fabric = devices.start(
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
        known = replace(directory.result(), classes=[*train_set.classes], shape=[*train_set.shape])
        directory.save_result(known)
        summary = train(fabric, model, plan, train_set, validation_set, directory, display)
    # A resumed run has the peaks of several processes.
    peaks = [directory.result().peak_memory, devices.peak_memory(fabric.device)]
    peak = max((peak for peak in peaks if peak is not None), default=None)
    summary = {**asdict(directory.result()), **summary, "peak_memory": peak}
    directory.save_result(typed(directory.path / RESULT, Result, summary))
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


def _environment(fabric: Fabric, command: str) -> Environment:
    cuda = fabric.device.type == "cuda"
    return Environment(
        regmix=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=platform.platform(),
        device=torch.cuda.get_device_name(fabric.device) if cuda else "cpu",
        threads=torch.get_num_threads(),
        processes=processes.size(),
        git_commit=git_commit(),
        command=command or " ".join(sys.argv),
    )


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
