"""One run directory: what is in it, how it is written, how it is read."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from regmix.runs.files import PART, digest, named, write_atomically
from regmix.runs.journal import BATTERY
from regmix.types import UserError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

Checkpoint = Literal["best", "last", "averaged"]
CHECKPOINTS: tuple[Checkpoint, ...] = get_args(Checkpoint)

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
STATE = "state-{:06d}-{}.pt"
HEALTHY = "healthy-{:06d}-{}.pt"
OUTCOMES = "outcomes-{}.csv"
EXAMPLES = "examples-{}.npz"
ADVERSARIAL = "adversarial-{}"


def _number(state: Path) -> int:
    return int(state.name.split("-")[1])


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
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    # Without allow_pickle=False, which older versions of numpy would write as one more array.
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


class Run:
    """A run directory.

    config.json          the experiment, from which the run can be repeated
    environment.json     versions, device, git commit, command
    metrics.jsonl        one line per epoch
    last, best, averaged.safetensors     weights; best is chosen on the validation split
    state-N-SUM.pt       everything that resuming needs, twice: the last one and the one before; SUM is a checksum
    healthy-N-SUM.pt     the same of the epoch that a guard goes back to
    outcomes-*.csv, examples-*.npz       one evaluation per checkpoint: a row per test example; a few images
    battery-*.jsonl      what an evaluation that is not finished has found so far
    adversarial-*/       if asked for: per attack the images that broke, as PNG, and all of them as adversarial.npz
    result.json          the summary of training and of every evaluation
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """With writes=False nothing is written: of several processes only the first may."""
        self.path, self._writes = path, writes

    @classmethod
    def create(cls, path: Path, config: str, environment: Mapping[str, object]) -> "Run":
        """Makes a new run directory; one that exists is never written over."""
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                f"{path} exists; give another --out, or continue it with: regmix train --resume {path}"
            ) from None
        run = cls(path)
        run._write_text(CONFIG, config)
        run._write_json(ENVIRONMENT, environment)
        return run

    @classmethod
    def open(cls, path: Path, *, writes: bool = True) -> "Run":
        """Opens an existing run directory."""
        if not (path / CONFIG).is_file():
            raise UserError(f"{path} is not a run directory: it has no {CONFIG}")
        return cls(path, writes=writes)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keeps other processes of this machine from training into the directory, as long as this one lives.

        Raises:
            UserError: another one does.
        """
        with (self.path / CONFIG).open("rb") as file:
            if self._writes and fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(
                        f"{self.path} is being trained by another process; wait for it, or end it"
                    ) from None
            yield

    def config(self) -> str:
        """The text of config.json."""
        return (self.path / CONFIG).read_text()

    def environment(self) -> dict[str, Any]:
        """The content of environment.json, empty if there is none."""
        return self._read_json(ENVIRONMENT)

    def append_metrics(self, row: Mapping[str, object]) -> None:
        """Adds one line to metrics.jsonl."""
        if not self._writes:
            return
        path = self.path / METRICS
        try:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise named(error, path) from error

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line that was cut off by a kill is left out."""
        path = self.path / METRICS
        lines = path.read_text().splitlines() if path.is_file() else []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number < len(lines):
                    raise UserError(f"{path} is damaged in line {number}: {error}") from None
        return rows

    def write_metrics(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replaces metrics.jsonl: a resumed run goes on from the rows that its state knows."""
        self._write_text(METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def save_weights(self, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> None:
        """Writes weights as safetensors."""
        if not self._writes:
            return
        data = _packed(state)
        write_atomically(self.weights(checkpoint), lambda file: file.write(data))

    def holds(self, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> bool:
        """Whether these are the weights of the checkpoint."""
        path = self.weights(checkpoint)
        return path.is_file() and path.read_bytes() == _packed(state)

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
            (self.path / HEALTHY.format(_number(place), checksum)).hardlink_to(place)
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

    def result(self) -> dict[str, Any]:
        """The content of result.json, empty if there is none yet."""
        return self._read_json(RESULT)

    def update_result(self, values: Mapping[str, object]) -> None:
        """Adds values to result.json, replacing those of the same name."""
        self._write_json(RESULT, self.result() | dict(values))

    def save_evaluation(
        self,
        checkpoint: Checkpoint,
        summary: Mapping[str, object],
        outcomes_csv: str,
        examples: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """Writes one checkpoint's outcomes and example images, and its summary into result.json."""
        self._write_text(OUTCOMES.format(checkpoint), outcomes_csv)
        _write_arrays(self.path / EXAMPLES.format(checkpoint), examples)
        evaluations = self.result().get("evaluations", {})
        self.update_result({"evaluations": {**evaluations, checkpoint: dict(summary)}})
        for path in self.path.glob(BATTERY.format(checkpoint, "*")):
            path.unlink()

    def save_adversarial(self, checkpoint: Checkpoint, column: str, rows: Sequence[int], images: Tensor) -> None:
        """Writes adversarial images, uint8 [B, C, H, W], as PNG files named by their places in the test split."""
        from PIL import Image

        folder = self._adversarial(checkpoint, column)
        folder.mkdir(parents=True, exist_ok=True)
        for row, image in zip(rows, images.cpu().permute(0, 2, 3, 1).numpy(), strict=True):
            picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
            write_atomically(folder / f"{row:06d}.png", lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]

    def load_adversarial(self, checkpoint: Checkpoint, column: str, broken: Sequence[int]) -> tuple[list[int], Tensor]:
        """The places and images, uint8 [B, C, H, W], that the PNG files of a column hold for the broken rows.

        Those of other rows are what an earlier evaluation has left, and are deleted.
        """
        from PIL import Image

        rows, images, expected = [], [], set(broken)
        for path in sorted(self._adversarial(checkpoint, column).glob("*.png")):
            if int(path.stem) not in expected:
                path.unlink()
                continue
            pixels = np.array(Image.open(path))
            rows.append(int(path.stem))
            images.append(torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1))
        return rows, torch.stack(images) if images else torch.zeros(0, 1, 1, 1, dtype=torch.uint8)

    def save_adversarial_table(self, checkpoint: Checkpoint, column: str, **arrays: np.ndarray[Any, Any]) -> None:
        """Writes adversarial.npz beside the PNG files of a column."""
        folder = self._adversarial(checkpoint, column)
        folder.mkdir(parents=True, exist_ok=True)
        _write_arrays(folder / "adversarial.npz", arrays)

    def _adversarial(self, checkpoint: Checkpoint, column: str) -> Path:
        return self.path / ADVERSARIAL.format(checkpoint) / column.replace("/", "_").replace(":", "-")

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise UserError(f"{self.path / name} is damaged: {error}") from None
        return content

    def _write_json(self, name: str, value: Mapping[str, object]) -> None:
        self._write_text(name, json.dumps(value, indent=2) + "\n")

    def _write_text(self, name: str, text: str) -> None:
        if not self._writes:
            return
        write_atomically(self.path / name, lambda file: file.write(text.encode()))
