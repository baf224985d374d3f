"""Run directories as a report sees them; nothing is written."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regmix.runs import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, RESULT, Run
from regmix.runs.evaluations import OUTCOMES, Examples, Outcomes, Stored
from regmix.runs.records import Column, Epoch, Evaluation, Result, read_record, same_eps, typed
from regmix.runtime.files import parse_json, read_object, read_steadily, read_text
from regmix.types import Fingerprint, Sample, UserError

__all__ = [
    "Column",
    "Epoch",
    "Evaluation",
    "Examples",
    "LoadedRun",
    "Outcomes",
    "aligned",
    "checkpoints",
    "images_of",
    "load",
    "same_eps",
]


@dataclass(frozen=True)
class LoadedRun:
    """A run directory; what it has not got (yet) is empty."""

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    epochs: list[Epoch]
    result: Result
    stored: list[Stored]
    """All its evaluations that hold, the latest last."""
    outdated: list[str]
    """What it has of evaluations that no longer hold, in a sentence each."""
    files: list[tuple[str, int]]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """By checkpoint the one that is shown, chosen by `aligned`."""
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    examples: dict[str, Examples] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.result.status == "finished"

    @property
    def source(self) -> str | None:
        """Where a model comes from that was not trained here; None for a run of regmix."""
        return str(self.environment["source"]) if "source" in self.environment else None

    @property
    def others(self) -> list[Evaluation]:
        """Evaluations that hold and are not the ones that are shown: of other images."""
        return [one.evaluation for one in self.stored if one.evaluation not in self.evaluations.values()]

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
    """Reads a run directory, into which a training or an evaluation may write meanwhile.

    Raises:
        UserError: no run directory, or a damaged file, which the message names.
    """
    return read_steadily(path, lambda: _load(path))


def _load(path: Path) -> LoadedRun:
    run = Run.open(path, writes=False)
    result = read_record(path / RESULT, Result) if (path / RESULT).is_file() else Result()
    found = run.evaluations()
    outdated = [
        f"An evaluation of {one.evaluation.subject.checkpoint} on {one.evaluation.examples} images, made "
        f"{one.evaluation.made[:10]}, is outdated: {one.outdated}."
        for one in found
        if one.outdated
    ]
    outdated += [
        f"A column of {one.evaluation.subject.checkpoint} is outdated: {text}."
        for one in found
        for text in one.left_out
    ]
    if result.evaluations:
        outdated.append("Evaluations by regmix 0.1 are left out: they do not say which weights they are about.")
    loaded = LoadedRun(
        path=path,
        config=read_object(path / CONFIG),
        environment=read_object(path / ENVIRONMENT) if (path / ENVIRONMENT).is_file() else {},
        epochs=_epochs(path / METRICS, result.epochs or 0),
        result=result,
        stored=[one for one in found if not one.outdated],
        outdated=outdated,
        files=_files(path),
    )
    return aligned([loaded])[0]


def aligned(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """The runs with the evaluations that are shown: of the images that most of their checkpoints met, the latest."""
    met = Counter(images_of(one.evaluation) for run in runs for one in run.stored)
    shown = []
    for run in runs:
        chosen: dict[str, Stored] = {}
        for one in sorted(run.stored, key=lambda one: (met[images_of(one.evaluation)], one.evaluation.made)):
            chosen[one.evaluation.subject.checkpoint] = one
        few = {name: one.examples() for name, one in chosen.items()}
        shown.append(
            replace(
                run,
                evaluations={name: chosen[name].evaluation for name in CHECKPOINTS if name in chosen},
                outcomes={name: one.outcomes() for name, one in chosen.items() if (one.folder / OUTCOMES).is_file()},
                examples={name: one for name, one in few.items() if one is not None},
            )
        )
    return shown


def images_of(evaluation: Evaluation) -> tuple[Sample, Fingerprint, int]:
    """What two evaluations must have in common to be compared: the images, how they were drawn, and the passes."""
    return evaluation.subject.sample, evaluation.subject.data, evaluation.subject.draws


def checkpoints(run: LoadedRun) -> list[str]:
    """The evaluated checkpoints of a run, in the order in which they are shown."""
    return [checkpoint for checkpoint in CHECKPOINTS if checkpoint in run.evaluations]


def _files(path: Path) -> list[tuple[str, int]]:
    """Names below the directory and sizes, without saved images, of which there may be thousands, and hidden files,
    which are locks and what somebody is writing."""
    found = []
    for file in sorted([*path.glob("*"), *path.glob("*/*/*")]):
        with suppress(FileNotFoundError):  # a training deletes the states that it no longer needs
            if file.is_file() and not file.name.startswith("."):
                found.append((str(file.relative_to(path)), file.stat().st_size))
    return found


def _epochs(path: Path, done: int) -> list[Epoch]:
    """The rows, which must be there for all the epochs that are done."""
    rows: list[Epoch] = []
    lines = read_text(path).splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line, f"line {number} of {path}")
        except UserError:
            # A run that was killed while it wrote leaves half a line behind; that is no damage.
            if number < len(lines):
                raise
            break
        rows.append(typed(path, Epoch, row))
    if [row.epoch for row in rows][:done] != [*range(1, done + 1)]:
        raise UserError(f"{path} lacks epochs; regmix train --resume {path.parent} writes it anew")
    return rows
