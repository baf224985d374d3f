"""A run directory: what is in it, and how it is written and read."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import JsonValue
from torch import Tensor

from regmix.runs.evaluations import Stored, stored
from regmix.runs.files import packed, read_record, typed, write_record
from regmix.runs.recognised import CONFIG, check_folder
from regmix.runs.records import Checkpoint, Data, Environment, Epoch, Result
from regmix.runs.settings import SETTINGS, check_weights, metadata_of
from regmix.runs.shown import as_html, as_text
from regmix.runs.states import HEALTHY, STATE, glance, load_state, number_of, states
from regmix.runtime.files import (
    PART,
    append,
    digest,
    link,
    parse_json,
    read_object,
    read_text,
    write_atomically,
    write_text,
)
from regmix.runtime.lock import locked
from regmix.types import Trust, UserError

CHECKPOINTS: tuple[Checkpoint, ...] = get_args(Checkpoint)

ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
DATA = "data.json"


def _is_training(path: Path) -> bool:
    """Whether a training has made the folder, rather than an evaluation of a model from elsewhere or anything else."""
    try:
        return Run.open(path, writes=False).environment().source is None
    except UserError:
        return False


def _line(row: Epoch) -> str:
    return json.dumps(asdict(row)) + "\n"


class Run:
    """A run directory.

    config.json          the experiment, from which the run can be repeated (config.Experiment)
    environment.json     versions, device, git commit, command (records.Environment)
    metrics.jsonl        one line per epoch (records.Epoch)
    metrics.csv          with --log csv: the same numbers as a table
    last, best, averaged.safetensors     weights, with the settings of model, threat and method; best is chosen on the
                         validation split
    state-N-SUM.pt       what resuming needs, settings included: the last state and the one before; SUM is a checksum
    healthy-N-SUM.pt     the state of the epoch to which the guard rolls back
    data.json            fingerprints of the images for training and validation (records.Data)
    result.json          the summary of the training (records.Result)
    evaluations/CHECKPOINT-EXAMPLES-KEY/     the results of attacks on these weights and these test images:
        evaluation.json      the accuracies, and what they are about (records.Evaluation)
        outcomes.csv         a row per test image, a column per attack: does it survive? (evaluations.Outcomes)
        predictions.csv      the same, with the class that the model predicts under the attack
        images.csv           the same for people, with the names of files and classes
        examples.npz         a few attacked images (evaluations.Examples)
        thumbnails.npz       small copies of the images that break first and last (thumbnails.Thumbnails)
        loss-surfaces.npz    the loss around a few images (loss_surface.LossSurfaces)
        journal-*.jsonl      the progress of an evaluation that is not finished
        journal-*-claims/    which process works on what (claims.Claims)
        adversarial/COLUMN/  with --save: the broken images as PNG files and adversarial.npz, all in adversarial.pt
    report.html          the report, where `regmix.report` wrote it for this run alone

    It shows itself in a terminal and in a notebook.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """With writes=False nothing is written: only rank 0 writes."""
        self.path, self.writes = path, writes

    def __repr__(self) -> str:
        """What was trained and measured, in lines of text."""
        try:
            return as_text(self)
        except (UserError, OSError) as error:  # a debugger shows objects at any time
            return f"Run {self.path}: {error}"

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return as_html(self)

    @classmethod
    def create(cls, path: Path, config: str, environment: Environment) -> "Run":
        """Makes a new run directory. Raises UserError if it exists."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            more = f", or continue it with: regmix train --resume {path}" if _is_training(path) else ""
            raise UserError(f"{path} exists; give another --out{more}") from None
        run = cls(path)
        run._write_text(CONFIG, config)
        write_record(path / ENVIRONMENT, environment)
        return run

    @classmethod
    def open(cls, path: str | Path, *, writes: bool = True) -> "Run":
        """Opens an existing run directory."""
        path = Path(path)
        check_folder(path)
        return cls(path, writes=writes)

    def claim(self) -> AbstractContextManager[None]:
        """Keeps other processes from training into the directory while this one does; see `locked`.

        Raises:
            UserError: another process trains into it.
        """
        return locked(self.path, "trained", wait=False) if self.writes else nullcontext()

    def config(self) -> str:
        """The text of config.json.

        Raises:
            UserError: the weights were trained with another model, threat model or method than it says.
        """
        text = read_text(self.path / CONFIG)
        check_weights(text, self.path / CONFIG, map(self.weights, self.checkpoints()))
        return text

    def settings(self) -> dict[str, JsonValue]:
        """The content of config.json, with today's defaults for settings that did not exist when it was written.

        If this version cannot read it, or the model, the data, the threat or the method is missing, it is as it was
        written.
        """
        # Imported here, so that `import regmix` stays fast.
        from regmix.config import from_json, to_json

        path = self.path / CONFIG
        written = read_object(path)
        if {"model", "data", "threat", "method"} - written.keys():
            return written
        text = self.config()
        try:  # the settings are only read, no code of the run's is imported
            return dict(json.loads(to_json(from_json(text, path, Trust(everything=True)))))
        except UserError:
            return written

    def environment(self) -> Environment:
        """The content of environment.json, empty if there is none."""
        path = self.path / ENVIRONMENT
        return read_record(path, Environment) if path.is_file() else Environment()

    def append_metrics(self, row: Epoch) -> None:
        """Adds one line to metrics.jsonl."""
        if self.writes:
            append(self.path / METRICS, _line(row))

    def metrics(self) -> list[Epoch]:
        """The rows of metrics.jsonl; a last line that was cut off by a kill is left out."""
        path = self.path / METRICS
        lines = read_text(path).splitlines() if path.is_file() else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(typed(path, Epoch, parse_json(line, f"line {number} of {path}")))
            except UserError:
                if number < len(lines):
                    raise
        return rows

    def write_metrics(self, rows: Sequence[Epoch]) -> None:
        """Replaces metrics.jsonl: a resumed run continues from the rows of its saved state."""
        self._write_text(METRICS, "".join(map(_line, rows)))

    def save_weights(self, checkpoint: Checkpoint, state: Mapping[str, Tensor], config: str = "") -> None:
        """Writes weights as safetensors, with what they keep of the config.json of their training."""
        if not self.writes:
            return
        data = packed(state, metadata_of(config))
        write_atomically(self.weights(checkpoint), lambda file: file.write(data))

    def weights(self, checkpoint: Checkpoint) -> Path:
        """Where the weights of a checkpoint are."""
        return self.path / f"{checkpoint}.safetensors"

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that have weights."""
        return [checkpoint for checkpoint in CHECKPOINTS if self.weights(checkpoint).is_file()]

    def without_best(self) -> str:
        """A sentence if the best weights of a finished training were removed; else empty."""
        epoch = self.result().best_epoch
        gone = epoch and not self.weights("best").is_file()
        return f"{self.weights('best')}, the weights of epoch {epoch}, was removed; put the file back" if gone else ""

    def save_state(self, state: Mapping[str, object], *, healthy: bool) -> None:
        """Writes what resuming needs, and keeps the state before; the guard rolls back to the last healthy state."""
        if not self.writes:
            return
        older = states(self.path, STATE)
        new = self.path / f".state{PART}"
        write_atomically(new, lambda file: torch.save(dict(state), file))
        checksum = digest(new)
        place = self.path / STATE.format(number_of(older[0]) + 1 if older else 1, checksum)
        new.replace(place)
        for path in older[1:]:
            path.unlink()
        if healthy:
            # A link instead of a copy, because a state with a method's memory can have gigabytes.
            before = states(self.path, HEALTHY)
            link(self.path / HEALTHY.format(number_of(place), checksum), place)
            for path in before:
                path.unlink()

    def has_state(self) -> bool:
        """Whether a state to resume from was saved."""
        return bool(states(self.path, STATE))

    def settings_of_state(self) -> dict[str, JsonValue] | None:
        """The settings of the training up to the last state that can be read; None if it does not say."""
        kept = next((state.get(SETTINGS) for path in states(self.path, STATE) if (state := glance(path))), None)
        return None if kept is None else dict(json.loads(kept))

    def load_state(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Reads what resuming needs (tensors on the CPU, plain values); None if no state was saved yet.

        Falls back to the state before if the last one is damaged, and calls `warn`.

        Raises:
            UserError: both are damaged.
        """
        if self.writes:
            for path in self.path.glob(f".*{PART}"):  # what a killed write left behind
                path.unlink()
        saved = states(self.path, STATE)
        for path in saved:
            if (state := load_state(path)) is not None:
                return state
            warn(f"{path} is damaged")
        if saved:
            raise UserError(f"{saved[0]} is damaged, and so is the state before; start the run again")
        return None

    def load_healthy_state(self) -> dict[str, Any]:
        """Reads the state that was last saved as healthy."""
        path = states(self.path, HEALTHY)[0]
        if (state := load_state(path)) is None:
            raise UserError(f"{path} is damaged, and the run cannot go back to it; start it again")
        return state

    def result(self) -> Result:
        """The content of result.json, empty if there is none yet."""
        path = self.path / RESULT
        return read_record(path, Result) if path.is_file() else Result()

    def save_result(self, result: Result) -> None:
        """Writes result.json."""
        if self.writes:
            write_record(self.path / RESULT, result)

    def lengthen(self, config: str) -> None:
        """Replaces the config of a finished run by one with more epochs, and records how many it had."""
        if not self.writes:
            return
        result, planned = self.result(), self.metrics()[-1].epochs
        # In this order, so that a kill between the two leaves no run that has forgotten its first length.
        before = [epochs for epochs in result.lengthened if epochs < planned]
        open_again = replace(
            result, status=None, train_seconds=None, best_epoch=None, best_pgd=None, best_clean=None, best_averaged=None
        )
        self.save_result(replace(open_again, lengthened=[*before, planned]))
        self._write_text(CONFIG, config)

    def data(self) -> Data | None:
        """Fingerprints of the images of the training; None for a run of regmix 0.1, which has none."""
        path = self.path / DATA
        return read_record(path, Data) if path.is_file() else None

    def save_data(self, data: Data) -> None:
        """Writes data.json."""
        if self.writes:
            write_record(self.path / DATA, data)

    def evaluations(self) -> list[Stored]:
        """All evaluations, the latest last, each with whether it still holds."""
        return stored(self.path, {checkpoint: self.weights(checkpoint) for checkpoint in self.checkpoints()})

    def _write_text(self, name: str, text: str) -> None:
        if self.writes:
            write_text(self.path / name, text)
