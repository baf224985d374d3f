"""Run directories as a report reads them; nothing is written."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from regmix.methods import METHODS
from regmix.runs import CHECKPOINTS, METRICS, Run
from regmix.runs.distances import Distances
from regmix.runs.evaluations import OUTCOMES, Examples, Outcomes, Stored
from regmix.runs.loss_surface import LossSurfaces
from regmix.runs.records import Column, Data, Environment, Epoch, Evaluation, Images, Result
from regmix.runs.thumbnails import Thumbnails
from regmix.runs.verdicts import with_verdicts
from regmix.runtime.files import read_steadily
from regmix.types import UserError

__all__ = [
    "Column",
    "Epoch",
    "Evaluation",
    "Examples",
    "LoadedRun",
    "Outcomes",
    "aligned",
    "checkpoints",
    "is_attacked",
    "judged_checkpoint",
    "load",
]


@dataclass(frozen=True)
class LoadedRun:
    """A run directory; what is not there (yet) is empty."""

    path: Path
    config: dict[str, JsonValue]
    """The settings, for display and comparison; see `Run.settings`."""
    environment: Environment
    epochs: list[Epoch]
    result: Result
    stored: list[Stored]
    """The evaluations that still hold, the latest last."""
    outdated: list[str]
    """A sentence for each evaluation that no longer holds."""
    files: list[tuple[str, int]]
    data: Data | None = None
    """The images that the run learns from and is validated on; None if they are not recorded."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """The evaluation that is shown, by checkpoint; chosen by `aligned`."""
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    distances: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    """By checkpoint and attack the lengths of the smallest perturbations, see `Distances`."""
    examples: dict[str, Examples] = field(default_factory=dict)
    thumbnails: dict[str, Thumbnails] = field(default_factory=dict)
    surfaces: dict[str, LossSurfaces] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the training is complete."""
        return self.result.status == "finished"

    @property
    def source(self) -> str | None:
        """The origin of a model from elsewhere; None for a run of regmix."""
        return self.environment.source

    @property
    def train_images(self) -> int:
        """The number of images that the run learns from; 0 if it is not recorded."""
        return self.data.train.images if self.data is not None else 0

    @property
    def validation_images(self) -> int:
        """The number of images that it is validated on; 0 if it is not recorded."""
        return self.data.validation.images if self.data is not None else 0

    @property
    def others(self) -> list[Evaluation]:
        """Evaluations that hold but are not shown, because they are on other images."""
        shown = self.evaluations.values()
        return [stored.evaluation for stored in self.stored if stored.evaluation not in shown]

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best checkpoint: from result.json, or of an unfinished run by the training's own rule.

        That is the first of the highest PGD accuracy on the validation images; after standard training of the highest
        clean accuracy. With best_of=either the averaged weights stand beside the others.
        """
        if self.result.best_epoch:
            return self.result.best_epoch
        method = METHODS.get(str(self.part("method").get("name")))
        by = "pgd" if method is None or method.adversarial else "clean"
        names = [by, f"averaged_{by}"] if self.config.get("best_of") == "either" else [by]
        best = {row.epoch: max((row.validation or {}).get(name, 0.0) for name in names) for row in self.validated}
        return max(best, key=best.__getitem__, default=None)

    @property
    def validated(self) -> list[Epoch]:
        """The epochs with a validation."""
        return [row for row in self.epochs if row.pgd is not None]

    @property
    def best_is_average(self) -> bool:
        """Whether the best checkpoint is averaged weights.

        Of a run that does not say so: whether its accuracy is not that of the weights of its epoch.
        """
        if self.result.best_averaged is not None:
            return self.result.best_averaged
        own = next((row.pgd for row in self.epochs if row.epoch == self.best_epoch), None)
        return own is not None and self.result.best_pgd is not None and abs(self.result.best_pgd - own) > 1e-6

    @property
    def seed(self) -> int:
        """The seed of the training; 0 if the config has none."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else 0

    @property
    def norm(self) -> str:
        """The name of the threat model: radii and accuracies under attack compare only within one."""
        return str(self.part("threat").get("name", "unknown"))

    @property
    def code(self) -> list[str]:
        """The flags with which a command may run the user's own model and data."""
        parts = {"--model.source": self.part("model"), "--data.source": self.part("data")}
        own = {flag: str(part["source"]) for flag, part in parts.items() if part.get("name") == "function"}
        return [word for pair in own.items() for word in pair]

    def part(self, name: str) -> dict[str, JsonValue]:
        """One nested part of the config, such as the method; empty if there is none."""
        value = self.config.get(name)
        return value if isinstance(value, dict) else {}


def load(path: Path) -> LoadedRun:
    """Reads a run directory. A training or an evaluation may write into it at the same time.

    Raises:
        UserError: no run directory, or a damaged file; the message names it.
    """
    return read_steadily(path, lambda: _load(path))


def _load(path: Path) -> LoadedRun:
    run = Run.open(path, writes=False)
    result, evaluations, data = run.result(), run.evaluations(), run.data()
    outdated = [
        f"An evaluation of {stored.evaluation.subject.checkpoint} on {stored.evaluation.examples} images, made "
        f"{stored.evaluation.made[:10]}, is outdated: {stored.outdated}."
        for stored in evaluations
        if stored.outdated
    ]
    outdated += [
        f"A column of {stored.evaluation.subject.checkpoint} is outdated: {text}."
        for stored in evaluations
        for text in stored.left_out
    ]
    if result.evaluations:
        outdated.append("Evaluations by regmix 0.1 are left out: they do not say which weights they are about.")
    loaded = LoadedRun(
        path=path,
        config=run.settings(),
        environment=run.environment(),
        epochs=_epochs(run, result.epochs or 0),
        result=result,
        stored=with_verdicts([stored for stored in evaluations if not stored.outdated]),
        outdated=outdated,
        files=_files(path),
        data=data,
    )
    return aligned([loaded])[0]


def aligned(runs: Sequence[LoadedRun], images: Images | None = None) -> list[LoadedRun]:
    """The runs with the evaluations that are shown: of each run those on one set of images.

    These are the given images, where the run was evaluated on them; else those on which most of the runs have an attack
    in common, so that they can be compared. Of several such sets, in this order: one on which the run was attacked, its
    own test split, one with the best weights, more images, more checkpoints, and the latest.
    """

    def attacked_by(run: LoadedRun, evaluations: Iterable[Evaluation]) -> set[tuple[Images, str, str]]:
        return {
            (each.images, run.norm, name)
            for each in evaluations
            for name, column in each.columns.items()
            if column.eps > 0
        }

    by_runs = Counter(key for run in runs for key in attacked_by(run, [stored.evaluation for stored in run.stored]))

    def rank(run: LoadedRun, those: Mapping[str, Stored]) -> tuple[bool, int, bool, bool, bool, int, int, str]:
        (first, *_) = evaluations = [stored.evaluation for stored in those.values()]
        made = max(evaluation.made for evaluation in evaluations)
        attacked = any(is_attacked(evaluation) for evaluation in evaluations)
        own = not all(evaluation.elsewhere for evaluation in evaluations)
        in_common = max((by_runs[key] for key in attacked_by(run, evaluations)), default=0)
        shared = first.images == images, in_common
        return *shared, attacked, own, "best" in those, first.examples, len(those), made

    shown = []
    for run in runs:
        sets: dict[Images, dict[str, Stored]] = {}
        for stored in run.stored:  # the latest counts
            sets.setdefault(stored.evaluation.images, {})[stored.evaluation.subject.checkpoint] = stored
        chosen = max(sets.values(), key=partial(rank, run), default={})
        outcomes = {name: each.outcomes() for name, each in chosen.items() if (each.folder / OUTCOMES).is_file()}
        distances = {name: Distances.read(chosen[name].folder, table.index).found for name, table in outcomes.items()}
        examples = {name: few for name, each in chosen.items() if (few := each.examples()) is not None}
        small = {name: copies for name, each in chosen.items() if (copies := Thumbnails.read(each.folder)) is not None}
        around = {name: loss for name, each in chosen.items() if (loss := LossSurfaces.read(each.folder)) is not None}
        evaluations: dict[str, Evaluation] = {name: chosen[name].evaluation for name in CHECKPOINTS if name in chosen}
        shown.append(
            replace(
                run,
                evaluations=evaluations,
                outcomes=outcomes,
                distances=distances,
                examples=examples,
                thumbnails=small,
                surfaces=around,
            )
        )
    return shown


def is_attacked(evaluation: Evaluation) -> bool:
    """Whether an evaluation has a column under an attack."""
    return any(column.eps > 0 for column in evaluation.columns.values())


def checkpoints(run: LoadedRun) -> list[str]:
    """The evaluated checkpoints of a run, in the order in which they are shown."""
    return [checkpoint for checkpoint in CHECKPOINTS if checkpoint in run.evaluations]


def judged_checkpoint(run: LoadedRun) -> str | None:
    """The checkpoint by which a run is judged: the first that was attacked, else the first that was evaluated."""
    evaluated = checkpoints(run)
    attacked = [name for name in evaluated if is_attacked(run.evaluations[name])]
    return next(iter([*attacked, *evaluated]), None)


def _files(path: Path) -> list[tuple[str, int]]:
    """Relative names and sizes of the files, without saved images (there may be thousands) and hidden files (locks, and
    files that are being written)."""
    sizes = []
    for file in sorted([*path.glob("*"), *path.glob("*/*/*")]):
        with suppress(FileNotFoundError):  # a training deletes the states that it no longer needs
            if file.is_file() and not file.name.startswith("."):
                sizes.append((str(file.relative_to(path)), file.stat().st_size))
    return sizes


def _epochs(run: Run, done: int) -> list[Epoch]:
    """The rows of metrics.jsonl, which must be there for all the epochs that are done."""
    rows = run.metrics()
    if [row.epoch for row in rows][:done] != [*range(1, done + 1)]:
        raise UserError(f"{run.path / METRICS} lacks epochs; regmix train --resume {run.path} writes it anew")
    return rows
