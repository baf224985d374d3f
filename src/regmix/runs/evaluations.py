"""The evaluations of a run directory: one folder per subject, in which evaluations of the same subject are merged."""

import csv
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regmix.runs.files import read_record, write_record
from regmix.runs.records import Column, Evaluation, Source, Subject
from regmix.runtime.files import digest, parse_json, read_text, write_atomically, write_text
from regmix.runtime.lock import locked
from regmix.types import UserError

EVALUATIONS = "evaluations"
EVALUATION = "evaluation.json"
OUTCOMES = "outcomes.csv"
PREDICTIONS = "predictions.csv"
EXAMPLES = "examples.npz"


@dataclass(frozen=True)
class Outcomes:
    """outcomes.csv and predictions.csv: what became of every example [N] in every column."""

    index: NDArray[np.int64]
    """Positions in the test split."""
    label: NDArray[np.int64]
    survives: dict[str, NDArray[np.bool_]]
    """Which examples survive, by column."""
    predicted: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """The predicted class under the attack, by column; -1 where it is not known. An example that is misclassified
    without an attack is not attacked. Older evaluations have no predictions.csv."""

    def merged(self, newer: "Outcomes") -> "Outcomes":
        """The columns of both; of columns with the same name the newer one."""
        assert np.array_equal(self.index, newer.index), "outcomes of different examples"
        older = {name: classes for name, classes in self.predicted.items() if name not in newer.survives}
        survives, predicted = {**self.survives, **newer.survives}, {**older, **newer.predicted}
        return Outcomes(newer.index, newer.label, survives, predicted)

    def to_csv(self) -> str:
        """One row per example: index, label, and 1 or 0 per column."""
        return self._csv(self.survives)

    def _csv(self, columns: Mapping[str, NDArray[Any]]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", "label", *columns])
        table = np.stack([self.index, self.label, *(column.astype(np.int64) for column in columns.values())], 1)
        writer.writerows(table.tolist())
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """Writes the tables as CSV, each atomically."""
        write_text(folder / OUTCOMES, self.to_csv())
        if self.predicted:
            write_text(folder / PREDICTIONS, self._csv(self.predicted))

    @staticmethod
    def read(folder: Path) -> "Outcomes":
        """Raises UserError if a file is damaged, or if they are about different examples."""
        index, label, columns = _read_csv(folder / OUTCOMES)
        survives, path = {name: column == 1 for name, column in columns.items()}, folder / PREDICTIONS
        if not path.is_file():
            return Outcomes(index, label, survives)
        other, other_label, predicted = _read_csv(path)
        if not (np.array_equal(index, other) and np.array_equal(label, other_label)):
            raise UserError(f"{path} and {OUTCOMES} are about different examples; delete {path}")
        # A kill between the two files may leave a column of an earlier evaluation.
        agree = {
            name: classes
            for name, classes in predicted.items()
            if name in survives and (((classes == label) == survives[name]) | (classes < 0)).all()
        }
        return Outcomes(index, label, survives, agree)


def _read_csv(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """The columns index and label, and the others by name."""
    try:
        header, *rows = list(csv.reader(read_text(path).splitlines())) or [[]]
        if header[:2] != ["index", "label"]:
            raise ValueError("the header does not begin with index,label")
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(header))
    except (ValueError, OverflowError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return table[:, 0], table[:, 1], {name: table[:, column] for column, name in enumerate(header) if column >= 2}


@dataclass(frozen=True)
class Examples:
    """examples.npz: a few attacked images: x uint8 [K, C, H, W], delta in pixel units of [0, 1], classes [K]."""

    x: NDArray[np.uint8]
    delta: NDArray[np.float32]
    label: NDArray[np.int64]
    clean_prediction: NDArray[np.int64]
    adversarial_prediction: NDArray[np.int64]
    attack: str
    eps: float

    def write(self, path: Path) -> None:
        """Writes compressed arrays, one per field."""
        write_arrays(path, vars(self))

    @staticmethod
    def read(path: Path) -> "Examples":
        """Raises UserError if the file is damaged."""
        arrays = read_arrays(path, Examples.__dataclass_fields__)
        try:
            few = Examples(**{**arrays, "attack": str(arrays["attack"]), "eps": float(arrays["eps"])})
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
        labels = (few.label, few.clean_prediction, few.adversarial_prediction)
        alike = few.x.ndim == 4 and few.x.shape == few.delta.shape
        if not alike or any(values.shape != few.x.shape[:1] for values in labels):
            raise UserError(f"{path} is damaged: its arrays do not have the same number of examples")
        return few


@dataclass(frozen=True)
class Stored:
    """An evaluation in a run directory."""

    folder: Path
    evaluation: Evaluation
    outdated: str = ""
    """Why its numbers no longer hold for the run; empty if they do."""
    left_out: list[str] = field(default_factory=list)
    """Columns that no longer hold, and why; `evaluation` is without them."""

    def outcomes(self, replaced: Evaluation | None = None) -> Outcomes:
        """Which examples survive what.

        Args:
            replaced: an evaluation whose columns are about to replace those here, so that they need not agree.

        Raises:
            UserError: the file is missing or damaged, or does not agree with evaluation.json.
        """
        path = self.folder / OUTCOMES
        table = Outcomes.read(self.folder)
        if len(table.label) != self.evaluation.examples:
            raise UserError(
                f"{path} has {len(table.label)} examples but {EVALUATION} counts {self.evaluation.examples}; "
                "evaluate the run again"
            )
        new = {} if replaced is None else replaced.columns
        kept = {name: column for name, column in self.evaluation.columns.items() if name not in new}
        for name, column in kept.items():
            if name not in table.survives or table.survives[name].sum() != column.correct:
                raise UserError(f"{path} and {EVALUATION} do not agree about {name}; evaluate the run again")
        return table

    def examples(self) -> Examples | None:
        """A few attacked images; None if there are none."""
        path = self.folder / EXAMPLES
        return Examples.read(path) if path.is_file() else None


def folder_of(run: Path, subject: Subject) -> Path:
    """The folder of the evaluations of a subject."""
    return run / EVALUATIONS / f"{subject.checkpoint}-{subject.sample.count}-{subject.key}"


def checked_folder(run: Path, subject: Subject) -> Path:
    """The same, if it lies in the run directory. Raises UserError if a link leads out of it."""
    folder = folder_of(run, subject)
    if not folder.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{folder} leads out of {run} through a link; remove it")
    return folder


def add(
    run: Path, evaluation: Evaluation, outcomes: Outcomes, examples: Examples | None,
    complete: Callable[[Evaluation, Outcomes], Evaluation] = lambda whole, _: whole,
) -> tuple[Evaluation, Outcomes]:  # fmt: skip
    """Merges an evaluation with the earlier ones of the same subject; returns all of it, and its outcomes.

    `complete` adds what follows from all of it, while no other process writes. Raises UserError if the earlier record
    or its table is damaged.
    """
    folder = folder_of(run, evaluation.subject)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "evaluated", wait=True):
        if (folder / EVALUATION).is_file():
            known = Stored(folder, read_record(folder / EVALUATION, Evaluation))
            if known.evaluation.subject.key != evaluation.subject.key:
                raise UserError(f"{folder / EVALUATION} is about another subject than its folder; remove the folder")
            evaluation, outcomes = known.evaluation.merged(evaluation), known.outcomes(evaluation).merged(outcomes)
        evaluation = complete(evaluation, outcomes)
        # In this order a reader may find more columns in the table than in the record, never fewer.
        outcomes.write(folder)
        if examples is not None:
            examples.write(folder / EXAMPLES)
        write_record(folder / EVALUATION, evaluation)
    return evaluation, outcomes


def stored(run: Path, weights: Mapping[str, Path]) -> list[Stored]:
    """All evaluations of a run directory, the latest last, each with whether it still holds.

    Args:
        weights: the files of weights that the run has, by checkpoint.

    Raises:
        UserError: a damaged record.
    """
    evaluations = []
    digests: dict[Path, str] = {}
    for path in (run / EVALUATIONS).glob(f"*/{EVALUATION}"):
        evaluation = read_record(path, Evaluation)
        sources = {name: changed_source(column) for name, column in evaluation.columns.items()}
        left_out = [f"{name}: {source} has changed since" for name, source in sources.items() if source]
        columns = {name: column for name, column in evaluation.columns.items() if not sources[name]}
        outdated = _outdated(run, evaluation.subject, weights, digests)
        evaluations.append(Stored(path.parent, replace(evaluation, columns=columns), outdated, left_out))
    return sorted(evaluations, key=lambda each: (each.evaluation.made, each.folder.name))


def settings_digest(config: str, path: Path = Path("config.json")) -> str:
    """Digest of the parts of config.json that decide what the weights compute and which perturbations are allowed."""
    settings = parse_json(config, path)
    settings = settings if isinstance(settings, dict) else {}
    threat = settings.get("threat")
    parts = [settings.get("model"), threat.get("name") if isinstance(threat, dict) else None]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _outdated(run: Path, subject: Subject, weights: Mapping[str, Path], digests: dict[Path, str]) -> str:
    # Weights that were removed are no others: the numbers are still about those of the recorded digest.
    present = weights.get(subject.checkpoint)
    if present is not None and _digest(present, digests) != subject.weights:
        return f"the {subject.checkpoint} weights have changed since"
    config = run / "config.json"
    if settings_digest(read_text(config), config) != subject.settings:
        return "the model or the threat model in config.json has changed since"
    changed = _changed(subject.code)
    return f"{changed} has changed since" if changed else ""


def has_columns(columns: Mapping[str, Source | None], evaluation: Evaluation) -> bool:
    """Whether an evaluation has all of these columns, those of transfer attacks from the same models.

    columns: by name the model that a transfer attack takes its examples from; None for another attack.
    """
    for name, source in columns.items():
        column = evaluation.columns.get(name)
        if column is None:
            return False
        if source is not None and (column.source is None or not column.source.comes_from(source)):
            return False
    return True


def changed_source(column: Column) -> str:
    """The file of weights, settings or code that a transfer column rests on, if one has changed since; else empty."""
    source = column.source
    if source is None:
        return ""
    config = Path(source.path).parent / "config.json"
    if source.settings and config.is_file() and settings_digest(read_text(config), config) != source.settings:
        return str(config)
    return _changed({source.path: source.weights} | source.code)


def _changed(digests: Mapping[str, str]) -> str:
    """The first of these files that is there and has another digest; empty if there is none."""
    return next((name for name, was in digests.items() if Path(name).is_file() and digest(Path(name)) != was), "")


def read_arrays(path: Path, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """Reads arrays by name, and optional ones that are there. Raises UserError if the file is damaged or lacks one."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in (*names, *(name for name in optional if name in file))}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes compressed arrays, or numbers and texts, by name, atomically."""
    # Without allow_pickle=False, which older versions of numpy would write as one more array.
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def _digest(path: Path, known: dict[Path, str]) -> str:
    if path not in known:
        known[path] = digest(path)
    return known[path]
