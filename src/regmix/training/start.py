"""Begins or resumes the training of an experiment in its run directory."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from regmix.config import Experiment, from_json, to_json
from regmix.data import class_changes, fingerprint, held_out_folder, placed
from regmix.models import changed_code, users_code
from regmix.runs import CONFIG, Run
from regmix.runs.alike import image_changes
from regmix.runs.environment import environment
from regmix.runs.records import Data
from regmix.runs.settings import PLACES, check_settings
from regmix.runtime import devices, processes
from regmix.runtime.files import digest
from regmix.training.display import Display
from regmix.training.found import found, idle, unlearnable
from regmix.training.prepare import Prepared, initial_weights, prepare
from regmix.training.session import Session
from regmix.types import NO_TRUST, Interrupted, Trust, UserError


def run(experiment: Experiment, out: Path, display: Display, command: str = "") -> Run:
    """Trains an experiment into a new run directory.

    Raises:
        UserError: the user has to change something; where possible it is raised before the directory is made.
    """
    prepared = prepare(experiment, display)
    if processes.rank() == 0:
        facts = environment(
            prepared.fabric.device, prepared.precision, command, initial_weights(experiment),
            users_code(prepared.model, experiment.model),
        )  # fmt: skip
        Run.create(out, to_json(experiment), facts)
    processes.from_first("the directory exists")
    return _train(experiment, prepared, Run.open(out, writes=processes.rank() == 0), display)


def resume(
    path: Path, display: Display, trust: Trust = NO_TRUST, epochs: int | None = None, root: str | Path | None = None
) -> Run:
    """Continues a run from its last saved state; it ends as it would have ended without the interruption.

    Args:
        epochs: lengthens a finished run to so many epochs. From its present epoch on, the learning rate and the ramp
            are those of a training of that length; result.json says so.
        root: where the images are now, if they were moved.

    Raises:
        UserError: the user has to change something, for example allow the code of a model.
    """
    directory = Run.open(path, writes=processes.started()[0] == 0)
    if not directory.has_state():
        rows = len(directory.metrics())
        # A training that died between its first row and its first state begins anew.
        if rows > 1 or directory.result().status is not None:
            raise UserError(
                f"{path} cannot be continued: its files state-*.pt, which resuming needs, were removed; put them back, "
                f"or train anew: regmix train --from {path}"
            )
        if rows:
            display.warn(f"{path} has no state of its first epoch, and begins anew")
    experiment = written = from_json(directory.config(), path / CONFIG, trust)
    # As the run began, which may have been on other hardware. Before it was recorded, auto meant bf16 everywhere.
    began = directory.environment().precision or "bf16"
    if experiment.precision == "auto":
        experiment = replace(experiment, precision=began)
    _check_same_settings(directory, experiment, began)
    if epochs is not None:
        experiment = _longer(experiment, epochs, directory)
    experiment = replace(experiment, data=placed(experiment.data, path, root))
    begun = experiment
    if experiment.init is not None:
        if directory.has_state():
            begun = replace(experiment, init=None, init_weights=None)
        else:
            _check_initial_weights(experiment, directory)
    prepared = prepare(begun, display)
    if text := changed_code(directory.environment().code, users_code(prepared.model, experiment.model)):
        display.warn(text)
    longer = to_json(replace(written, epochs=epochs)) if epochs is not None else None
    with _continued_with([] if root is None else ["--data.root", str(root)]):
        return _train(experiment, prepared, directory, display, longer)


def _check_same_settings(directory: Run, experiment: Experiment, precision: str) -> None:
    """Raises UserError if config.json was edited since the state to resume from was saved.

    Args:
        precision: what auto meant when the run began.
    """
    before = directory.settings_of_state()
    if before is None:  # nothing is trained yet, or by a version that did not keep them
        return
    if before["precision"] == "auto":
        before["precision"] = precision
    # A run that is lengthened has more epochs than its state until the first of them is done.
    longer = {"epochs"} if before["epochs"] in directory.result().lengthened else set()
    now = json.loads(to_json(experiment))
    check_settings(before, now, directory.path / CONFIG, "the run", PLACES | longer)


def _longer(experiment: Experiment, epochs: int, directory: Run) -> Experiment:
    """The experiment with more epochs. Raises UserError unless its run is finished and has fewer."""
    status = directory.result().status
    if status == "stopped":
        raise UserError(
            f"{directory.path} was stopped by its guard, and more epochs would not change that; start a new run with "
            "--guard.action continue or rollback"
        )
    if status != "finished":
        raise UserError(
            f"{directory.path} is not finished; continue it with {experiment.resume_command(directory.path)} first, "
            "without --epochs"
        )
    if epochs <= experiment.epochs:
        raise UserError(f"{directory.path} has {experiment.epochs} epochs already; give a larger number than that")
    return replace(experiment, epochs=epochs)


def _check_initial_weights(experiment: Experiment, directory: Run) -> None:
    """Raises UserError if a run that has to begin anew would begin with other weights."""
    path = initial_weights(experiment)
    if path is None:  # a library's own weights, which its name decides
        return
    if not path.is_file() or digest(path) != directory.environment().init:
        raise UserError(f"{path} is missing or has changed since {directory.path} began; start a new run")


def _train(
    experiment: Experiment, prepared: Prepared, directory: Run, display: Display, longer: str | None = None
) -> Run:
    """Trains to the end. `longer` is the config.json of a run that is lengthened."""
    if (count := processes.size()) > 1:
        display.note(
            f"{count} processes share every batch of {experiment.batch_size} images; the peak learning rate is "
            f"{experiment.lr:g}, whatever their number"
        )
    images = prepared.train_set
    for note in (*images.notes, *found(experiment, prepared)):
        display.note(note)
    for line in (*idle(experiment), *unlearnable(images)):
        display.warn(line)
    with directory.claim(), _continued_with(experiment.code_flags):
        held_out = prepared.validation_set
        now = Data(fingerprint(images), fingerprint(held_out), [*images.notes], held_out_folder(held_out))
        _check_same_images(directory, now, images.classes, display)
        if longer is not None:  # all processes have met in `prepare`, so none reads what is written now
            directory.lengthen(longer)
        directory.save_result(replace(directory.result(), classes=[*images.classes], shape=[*images.shape]))
        result = Session(experiment, prepared, directory, display).train()
    # Each process that trained a part of a resumed run had a peak of its own.
    peaks = [result.peak_memory, devices.peak_memory(prepared.fabric.device)]
    peak = max((peak for peak in peaks if peak is not None), default=None)
    directory.save_result(replace(result, peak_memory=peak))
    return directory


def _check_same_images(directory: Run, now: Data, classes: tuple[str, ...], display: Display) -> None:
    """Records the images of a new run; raises UserError if those of a resumed run have changed.

    Other images give another split: the run could be validated on images that it was trained on.
    """
    before, result = directory.data(), directory.result()
    if before is None:
        text = class_changes(tuple(result.classes), classes) if result.classes else ""
        difference = text and f"the classes have changed: {text}"
    else:
        difference = image_changes(before, now)
        if before.train.times != now.train.times and not difference:
            display.warn("the files of the images were written again since the run began; names and sizes agree")
    if difference:
        raise UserError(
            f"the images have changed since {directory.path} began: {difference}; put them back, or start a new run"
        )
    if before is None:
        directory.save_data(now)


@contextmanager
def _continued_with(words: Sequence[str]) -> Iterator[None]:
    """Adds flags to the command that continues an interrupted training, such as the code of a user's model."""
    try:
        yield
    except Interrupted as interrupted:
        if interrupted.saved:
            interrupted.saved = " ".join([interrupted.saved, *map(shlex.quote, words)])
        raise
