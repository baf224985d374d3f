"""Run directories as typed values: everything that a report says is read here, and nothing is written."""

import csv
import json
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from regmix.runs import CHECKPOINTS, CONFIG, ENVIRONMENT, EXAMPLES, METRICS, OUTCOMES, RESULT
from regmix.types import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Rounded:
    """How many adversarial images were saved in whole grey levels, and how many of them still fool the model."""

    images: int
    still_adversarial: int


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble, and the accuracy that it and those before it leave."""

    attack: str
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Masking:
    """Whether the model hides its gradients, and what speaks for it."""

    verdict: str
    signs: list[str]


@dataclass(frozen=True)
class Column:
    """One attack at one eps on one checkpoint: how many examples survive, with the 95 % Wilson interval."""

    attack: str
    eps: float
    eps_text: str
    accuracy: float
    low: float
    high: float
    correct: int
    stages: list[Stage] = field(default_factory=list)
    rounded: Rounded | None = None
    note: str = ""
    """What must stand beside the number."""


@dataclass(frozen=True)
class Corruptions:
    """Accuracy per corruption, from the weakest severity on."""

    source: str
    severities: list[int]
    accuracy: dict[str, list[float]]
    mean: float


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint's columns, by the names that they have in the outcomes file."""

    examples: int
    columns: dict[str, Column]
    preflight: list[str] = field(default_factory=list)
    masking: Masking | None = None
    corruptions: Corruptions | None = None


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl; accuracies lie in [0, 1], terms are weighted, per_example is not."""

    epoch: int
    epochs: int
    lr: float
    loss: float
    terms: dict[str, float]
    per_example: dict[str, float] = field(default_factory=dict)
    train_robust: float | None = None
    validation: dict[str, float] | None = None
    images_per_second: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Alarm:
    """What the guard against catastrophic overfitting found, and what it was told to do about it."""

    epoch: int
    reason: str
    action: Literal["continue", "stop", "rollback"]


@dataclass(frozen=True)
class Result:
    """result.json; everything in it may be missing as long as a run is not finished."""

    status: str | None = None
    epochs: int | None = None
    train_seconds: float | None = None
    best_epoch: int | None = None
    peak_memory: int | None = None
    alarms: list[Alarm] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcomes:
    """The rows of an outcomes file: index and label [N], and per column which examples survive, bool [N]."""

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    survives: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Examples:
    """A few attacked images: x uint8 [K, C, H, W], delta float in pixel units of [0, 1], classes [K]."""

    x: NDArray[np.uint8]
    delta: NDArray[np.float32]
    label: NDArray[np.int64]
    clean_prediction: NDArray[np.int64]
    adversarial_prediction: NDArray[np.int64]
    attack: str
    eps: float


@dataclass(frozen=True)
class LoadedRun:
    """A run directory; what it has not got (yet) is empty."""

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    epochs: list[Epoch]
    result: Result
    outcomes: dict[str, Outcomes]
    examples: dict[str, Examples]
    files: list[tuple[str, int]]

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.result.status == "finished"

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best checkpoint: result.json's, or the first one of the highest validation accuracy."""
        if self.result.best_epoch:
            return self.result.best_epoch
        validated = [row for row in self.epochs if row.validation and "pgd" in row.validation]
        best = max(validated, key=lambda row: (row.validation or {})["pgd"], default=None)
        return best.epoch if best else None

    def part(self, name: str) -> dict[str, Any]:
        """One nested part of the config, such as the method; empty if the config has none."""
        value = self.config.get(name)
        return value if isinstance(value, dict) else {}


def load(path: Path) -> LoadedRun:
    """Reads a run directory.

    Raises:
        UserError: no run directory, or a damaged file, which the message names.
    """
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is not a run directory: it has no {CONFIG}")
    result = Result()
    if (path / RESULT).is_file():
        result = _typed(path / RESULT, Result, _json(path / RESULT))
    outcomes, examples = {}, {}
    for checkpoint, evaluation in result.evaluations.items():
        if (file := path / OUTCOMES.format(checkpoint)).is_file():
            outcomes[checkpoint] = _outcomes(file, evaluation)
        if (file := path / EXAMPLES.format(checkpoint)).is_file():
            few = _examples(file)
            if few is not None:
                examples[checkpoint] = few
    return LoadedRun(
        path=path,
        config=_typed(path / CONFIG, dict[str, Any], _json(path / CONFIG)),
        environment=_typed(path / ENVIRONMENT, dict[str, Any], _json(path / ENVIRONMENT))
        if (path / ENVIRONMENT).is_file()
        else {},
        epochs=_epochs(path / METRICS, result.epochs or 0),
        result=result,
        outcomes=outcomes,
        examples=examples,
        files=sorted((file.name, file.stat().st_size) for file in path.iterdir() if file.is_file()),
    )


def checkpoints(run: LoadedRun) -> list[str]:
    """The evaluated checkpoints of a run, in the order in which they are shown."""
    return [checkpoint for checkpoint in CHECKPOINTS if checkpoint in run.result.evaluations]


def same_eps(a: float, b: float) -> bool:
    """Whether two radii are the same but for the digits that their files keep."""
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _typed(path: Path, kind: type[T], value: Any) -> T:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}") from None


def _epochs(path: Path, done: int) -> list[Epoch]:
    """The rows, which must be there for all the epochs that are done."""
    rows: list[Epoch] = []
    lines = _read(path).splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_typed(path, Epoch, json.loads(line)))
        except json.JSONDecodeError as error:
            # A run that was killed while it wrote leaves half a line behind; that is no damage.
            if number < len(lines):
                raise UserError(f"{path} is damaged in line {number}: {error}") from None
    if [row.epoch for row in rows][:done] != [*range(1, done + 1)]:
        raise UserError(f"{path} lacks epochs; regmix train --resume {path.parent} writes it anew")
    return rows


def _outcomes(path: Path, evaluation: Evaluation) -> Outcomes:
    header, *rows = list(csv.reader(_read(path).splitlines())) or [[]]
    try:
        if header[:2] != ["index", "label"]:
            raise ValueError("the header does not begin with index,label")
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(header))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if len(table) != evaluation.examples:
        raise UserError(
            f"{path} has {len(table)} examples but {RESULT} speaks of {evaluation.examples}; evaluate the run again"
        )
    survives = {name: table[:, column] == 1 for column, name in enumerate(header) if column >= 2}
    for name, column in evaluation.columns.items():
        if name not in survives or survives[name].sum() != column.correct:
            raise UserError(f"{path} and {RESULT} do not agree about {name}; evaluate the run again")
    return Outcomes(table[:, 0], table[:, 1], survives)


def _examples(path: Path) -> Examples | None:
    """None if the file is empty, as it is after an evaluation without attacks."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if not file.files:
                return None
            arrays = {name: file[name] for name in Examples.__dataclass_fields__}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    few = Examples(**{**arrays, "attack": str(arrays["attack"]), "eps": float(arrays["eps"])})
    labels = (few.label, few.clean_prediction, few.adversarial_prediction)
    if few.x.ndim != 4 or few.x.shape != few.delta.shape or any(values.shape != few.x.shape[:1] for values in labels):
        raise UserError(f"{path} is damaged: its arrays do not have the same number of examples")
    return few
