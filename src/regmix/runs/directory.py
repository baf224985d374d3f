"""One run directory: what is in it, how it is written, how it is read."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from regmix.runs.evaluations import Stored, stored
from regmix.runs.files import read_record, typed, write_record
from regmix.runs.records import Checkpoint, Data, Environment, Epoch, Result
from regmix.runtime.files import PART, append, digest, link, parse_json, read_text, write_atomically
from regmix.runtime.lock import locked
from regmix.types import UserError

CHECKPOINTS: tuple[Checkpoint, ...] = get_args(Checkpoint)

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
DATA = "data.json"
STATE = "state-{:06d}-{}.pt"
HEALTHY = "healthy-{:06d}-{}.pt"


def _number(state: Path) -> int:
    return int(state.name.split("-")[1])


def _line(row: Epoch) -> str:
    return json.dumps(asdict(row)) + "\n"


def _load_state(path: Path) -> dict[str, Any] | None:
    """The content of a state whose name ends with its checksum; None if it is damaged."""
    try:
        if digest(path) != path.stem.split("-")[2]:
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError):
        return None
    return state


def _packed(state: Mapping[str, Tensor]) -> bytes:
    """The tensors as safetensors, complete under every name, because the format knows no memory of two names."""
    tensors: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if memory in taken else own
        taken.add(memory)
    return save(tensors)


class Run:
    """A run directory.

    config.json          the experiment, from which the run can be repeated
    environment.json     versions, device, git commit, command
    metrics.jsonl        one line per epoch
    last, best, averaged.safetensors     weights; best is chosen on the validation split
    state-N-SUM.pt       everything that resuming needs, twice: the last one and the one before; SUM is a checksum
    healthy-N-SUM.pt     the same of the epoch that a guard goes back to
    data.json            what the images of training and validation were, to be recognised by
    result.json          the summary of the training
    evaluations/CHECKPOINT-EXAMPLES-KEY/     what attacks have found about these weights and these test images:
        evaluation.json      the accuracies, and what they are about (records.Evaluation)
        outcomes.csv         a row per test image, a column per attack
        examples.npz         a few attacked images
        journal-*.jsonl      what an evaluation that is not finished has found so far
        adversarial/COLUMN/  if asked for: the images that broke, as PNG, and all of them as adversarial.npz
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """With writes=False nothing is written: of several processes only the first may."""
        self.path, self._writes = path, writes

    @classmethod
    def create(cls, path: Path, config: str, environment: Environment) -> "Run":
        """Makes a new run directory; one that exists is never written over."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                f"{path} exists; give another --out, or continue it with: regmix train --resume {path}"
            ) from None
        run = cls(path)
        run._write_text(CONFIG, config)
        write_record(path / ENVIRONMENT, environment)
        return run

    @classmethod
    def open(cls, path: Path, *, writes: bool = True) -> "Run":
        """Opens an existing run directory."""
        if not (path / CONFIG).is_file():
            raise UserError(f"{path} is not a run directory: it has no {CONFIG}")
        return cls(path, writes=writes)

    def claim(self) -> AbstractContextManager[None]:
        """Keeps other processes from training into the directory, as long as this one lives; see `locked`.

        Raises:
            UserError: another one does.
        """
        return locked(self.path, "trained", wait=False) if self._writes else nullcontext()

    def config(self) -> str:
        """The text of config.json."""
        return read_text(self.path / CONFIG)

    def environment(self) -> Environment:
        """The content of environment.json, empty if there is none."""
        path = self.path / ENVIRONMENT
        return read_record(path, Environment) if path.is_file() else Environment()

    def append_metrics(self, row: Epoch) -> None:
        """Adds one line to metrics.jsonl."""
        if self._writes:
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

    def save_weights(self, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> None:
        """Writes weights as safetensors."""
        if not self._writes:
            return
        data = _packed(state)
        write_atomically(self.weights(checkpoint), lambda file: file.write(data))

    def weights(self, checkpoint: Checkpoint) -> Path:
        """Where the weights of a checkpoint are."""
        return self.path / f"{checkpoint}.safetensors"

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that have weights."""
        return [checkpoint for checkpoint in CHECKPOINTS if self.weights(checkpoint).is_file()]

    def save_state(self, state: Mapping[str, object], *, healthy: bool) -> None:
        """Writes what resuming needs, and keeps the one before; a healthy state is also the one to roll back to."""
        if not self._writes:
            return
        older = self._states(STATE)
        new = self.path / f".state{PART}"
        write_atomically(new, lambda file: torch.save(dict(state), file))
        checksum = digest(new)
        place = self.path / STATE.format(_number(older[0]) + 1 if older else 1, checksum)
        new.replace(place)
        for path in older[1:]:
            path.unlink()
        if healthy:
            # A link and not a copy, because a state with a method's memory can be gigabytes.
            before = self._states(HEALTHY)
            link(self.path / HEALTHY.format(_number(place), checksum), place)
            for path in before:
                path.unlink()

    def load_state(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Reads what resuming needs (tensors on the CPU, plain values); None if the run has not got that far.

        Falls back to the state before where the last one is damaged; `warn` is told.

        Raises:
            UserError: both are damaged.
        """
        if self._writes:
            for path in self.path.glob(f".*{PART}"):  # what a killed write left behind
                path.unlink()
        found = self._states(STATE)
        for path in found:
            if (state := _load_state(path)) is not None:
                return state
            warn(f"{path} is damaged")
        if found:
            raise UserError(f"{found[0]} is damaged and the run cannot be resumed from it; nor from the one before")
        return None

    def load_healthy_state(self) -> dict[str, Any]:
        """Reads the state that was last saved as healthy."""
        path = self._states(HEALTHY)[0]
        if (state := _load_state(path)) is None:
            raise UserError(f"{path} is damaged and the run cannot go back to it")
        return state

    def _states(self, pattern: str) -> list[Path]:
        """The files of this kind, the newest first."""
        return sorted(self.path.glob(pattern.replace("{:06d}", "*").format("*")), key=_number, reverse=True)

    def result(self) -> Result:
        """The content of result.json, empty if there is none yet."""
        path = self.path / RESULT
        return read_record(path, Result) if path.is_file() else Result()

    def save_result(self, result: Result) -> None:
        """Writes result.json."""
        if self._writes:
            write_record(self.path / RESULT, result)

    def data(self) -> Data | None:
        """What the images of the training were; None for a run of regmix 0.1, which did not note it."""
        path = self.path / DATA
        return read_record(path, Data) if path.is_file() else None

    def save_data(self, data: Data) -> None:
        """Writes data.json."""
        if self._writes:
            write_record(self.path / DATA, data)

    def evaluations(self) -> list[Stored]:
        """All that attacks have found so far, the latest last, each with whether it still holds."""
        return stored(self.path, {checkpoint: self.weights(checkpoint) for checkpoint in self.checkpoints()})

    def _write_text(self, name: str, text: str) -> None:
        if not self._writes:
            return
        write_atomically(self.path / name, lambda file: file.write(text.encode()))
