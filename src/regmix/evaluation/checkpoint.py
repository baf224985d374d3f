"""The evaluation of one checkpoint: first the clean images, then one attack after the other, corruptions, a verdict."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regmix import __version__
from regmix.attacks import CLEAN, Attack, Ensemble, Eot, Fgsm, Minimal, Pgd, Square, passes
from regmix.data import changes, pick, spread
from regmix.evaluation.answers import gradient_fault
from regmix.evaluation.curve import curve, curve_text, smallest
from regmix.evaluation.evaluator import Evaluator
from regmix.evaluation.examples import collect_examples, thumbnails
from regmix.evaluation.masking import probe, verdict
from regmix.evaluation.one_answer import one_answer
from regmix.evaluation.outcomes import wilson
from regmix.evaluation.preflight import preflight
from regmix.evaluation.saved import recheck, saver
from regmix.evaluation.screening import SCREENED
from regmix.evaluation.subject import PlacedModel, is_users, journal_key
from regmix.evaluation.table import not_attacked_note
from regmix.evaluation.task import Column, Task
from regmix.models import code_files
from regmix.runs import Checkpoint, Journal, records
from regmix.runs.distances import Curve, Distances
from regmix.runs.evaluations import Examples, Outcomes, Stored, add, folder_of, settings_digest
from regmix.runs.records import Corruptions, Evaluation, Masking, Stage, Subject
from regmix.runs.thumbnails import breaking
from regmix.runtime import processes
from regmix.runtime.files import digest
from regmix.threats import format_eps
from regmix.types import OneAnswer, UserError

EXAMPLES_SHOWN = 8
PREFLIGHT, PROBED = 100, 64
"""How many images the checks before the attacks, and the probe for masked gradients, look at."""


class CheckpointEvaluation:
    """What an evaluation finds out about one checkpoint of a run. The methods are called in their order."""

    def __init__(self, task: Task, checkpoint: Checkpoint, loaded: PlacedModel, before: Sequence[Stored]) -> None:
        """before: the evaluations of this checkpoint that the run has already, the latest last."""
        self._task, self._loaded, self._before = task, loaded, before
        questions, test, run = task.questions, task.test, task.run
        code = [path.resolve() for path in code_files(loaded.model, task.experiment.model)]
        self.subject = Subject(
            checkpoint, loaded.weights, settings_digest(run.config()), test.split, test.sample,
            questions.draws, {str(path): digest(path) for path in code if is_users(path)},
        )  # fmt: skip
        if processes.from_first(self.subject.key) != self.subject.key:
            raise UserError(f"{run.path} changed while its weights were read; evaluate it again")
        self._folder = folder_of(run.path, self.subject)
        if not self._folder.resolve().is_relative_to(run.path.resolve()):
            raise UserError(f"{self._folder} leads out of {run.path} through a link; remove it")
        world = processes.Processes()
        self._writes = world.rank == 0
        self._journal = Journal(self._folder, journal_key(self.subject, code, questions), world.rank)
        self._model = Eot(loaded.model, questions.draws) if questions.draws > 1 else loaded.model
        self._evaluator = Evaluator(
            self._model, test.images, task.device, questions.batch_size, self._journal, world, task.progress.work
        )
        self._began = time.perf_counter()
        self._columns: dict[str, records.Column] = {}
        self._survives: dict[str, Tensor] = {}
        self._predicted: dict[str, Tensor] = {}
        self._corruptions: list[Corruptions] = []
        self._distances: dict[str, NDArray[np.float64]] = {}
        self._findings: list[str] = []
        self._one_answer: OneAnswer | None = None

    def check_and_predict(self) -> None:
        """Looks for what would make the numbers meaningless, and predicts the clean images."""
        task, images = self._task, self._task.test.images
        self._note_other_images()
        if self._loaded.layout is not None:
            self._note(self._loaded.layout)
        some = self._evaluator.take(spread(images.labels, PREFLIGHT))
        attacks = {named.name: loaded.attack for named, loaded in task.suite.items()}
        self._findings = preflight(self._model, some.x, some.y, len(images.classes), attacks)
        for finding in self._findings:
            self._note(finding)
        self._model.eval()
        predicted = processes.from_first(self._evaluator.predictions())
        self._clean = predicted == images.labels
        self._predicted[CLEAN] = predicted
        self._one_answer = one_answer(predicted, images.labels, images.classes)
        if self._one_answer is not None:
            self._findings.append(self._one_answer.text("the test images"))
            self._note(self._findings[-1])
        self._add(CLEAN, self._column(CLEAN, 0.0, self._clean), self._clean)

    def _note_other_images(self) -> None:
        if not self._before:
            return
        latest = self._before[-1].evaluation
        if text := changes(latest.subject.data, self._task.test.split):
            self._note(
                f"the test images are not those of the evaluation of {latest.made[:10]}: {text}; "
                "this evaluation is kept beside it"
            )

    def attack(self) -> None:
        """Runs every attack at every radius on the images that are classified correctly without one."""
        columns = [*self._task.columns()]
        for number, column in enumerate(columns, 1):
            later = int(self._clean.sum()) * sum(passes(other.attack) for other in columns[number:])
            self._attack(column, later)

    def _attack(self, column: Column, later: int) -> None:
        """Runs one attack. later: the work of the attacks that follow it."""
        task, threat = self._task, column.asked.threat
        alive, untried, predicted = self._clean, self._clean, self._predicted[CLEAN].clone()
        began, done = time.perf_counter(), []
        remarks: dict[str, None] = {}  # a dict, so that what is true of several stages is said once
        keep = saver(self._folder, column.name, task.test, threat) if task.questions.save else None
        for position, (stage, attack) in enumerate(column.stages):
            rest = int(alive.sum()) * sum(passes(other) for _, other in column.stages[position:])
            title = f"{self.subject.checkpoint}, {column.name}" + (f": {stage}" if len(column.stages) > 1 else "")
            task.progress.stage(title, rest + later)
            before = alive
            alive, idle, taken_for = self._evaluator.survivors(
                attack, threat, alive, column.in_journal(stage),
                screen=not task.questions.exact and isinstance(attack, SCREENED), keep=keep, note=remarks.setdefault,
            )  # fmt: skip
            untried = untried & idle & alive
            predicted = torch.where(before & ~alive, taken_for, predicted)
            done.append(Stage(stage, float(alive.double().mean()), time.perf_counter() - began))
        record = replace(self._column(column.asked.named.name, threat.eps, alive), source=column.source)
        if isinstance(column.attack, Ensemble):
            record = replace(record, stages=done, note=column.attack.note)
        if idle_note := not_attacked_note(int(untried.sum()), len(untried)):
            record = replace(record, not_attacked=int(untried.sum()), note=f"{idle_note}. {record.note}".strip())
        if task.questions.save and self._writes:
            broken = self._clean & ~alive
            rounded = recheck(self._model, self._folder, column.name, task.test, broken, task.device)
            record = replace(record, rounded=rounded)
        self._add(column.name, record, alive)
        self._predicted[column.name] = predicted
        for note in [record.note, *remarks] if record.note else remarks:
            self._note(note)

    def find_smallest(self) -> None:
        """Finds the smallest perturbation of every image, by every attack of the curve."""
        task = self._task
        for number, named in enumerate(task.questions.curve):
            assert isinstance(named.attack, Minimal), "checked before"
            later = sum(passes(other.attack) for other in task.questions.curve[number:] if other.attack is not None)
            task.progress.stage(f"{self.subject.checkpoint}, smallest by {named.name}", int(self._clean.sum()) * later)
            found = self._evaluator.distances(named.attack, task.experiment.threat, self._clean, named.name)
            self._distances[named.name] = found.numpy()

    def _curve(self, outcomes: Outcomes) -> Curve | None:
        """The curve that follows from all distances and columns of this subject, earlier ones among them."""
        index = self._task.test.index.numpy()
        distances = Distances.read(self._folder, index).merged(Distances(index, self._distances))
        if not distances.found:
            return None
        if self._distances:
            self._folder.mkdir(parents=True, exist_ok=True)
            distances.write(self._folder)
        columns, survives = {**self._columns}, {**outcomes.survives}
        for stored in self._before:
            if stored.folder == self._folder:
                columns = {**stored.evaluation.columns, **columns}
                survives = {**stored.outcomes().survives, **survives}
        bounds = {name: (column.eps, survives[name]) for name, column in columns.items()}
        names = [*distances.found, *(name for name in bounds if name != CLEAN)]
        drawn = curve(smallest(distances.found, bounds), names, {c.eps for c in columns.values()})
        self._note(curve_text(drawn))
        return drawn

    def corrupt(self) -> None:
        """Measures the accuracy under every corruption at every severity."""
        task, images, checkpoint = self._task, self._task.test.images, self.subject.checkpoint
        if not task.kinds:
            return
        task.progress.stage(f"{checkpoint}, corruptions", len(task.kinds) * len(images))
        make = partial(task.corruptions.images, images=images.pixels(), labels=images.labels)
        right = self._evaluator.withstood(task.kinds, make)
        accuracy: dict[str, dict[int, float]] = {}
        for (name, severity), share in zip(task.kinds, right.double().mean(1).tolist(), strict=True):
            accuracy.setdefault(name, {})[severity] = share
        rows = [[*row.values()] for row in accuracy.values()]
        for name, row in zip(accuracy, rows, strict=True):
            task.progress.corruption(checkpoint, name, row)
        means = [sum(column) / len(accuracy) for column in zip(*rows, strict=True)]
        task.progress.corruption(checkpoint, "mean of all", means)
        folder = task.questions.corruption_files
        self._corruptions.append(Corruptions("computed" if folder is None else str(folder), accuracy))

    def write(self) -> None:
        """Gives the verdict on masking, and adds everything to the run's evaluations; rank 0 writes."""
        task = self._task
        masking = self._masking() if task.questions.verdict else None
        shown = self._examples() if task.suite else None
        if not self._writes:
            return
        survives = {name: alive.numpy() for name, alive in self._survives.items()}
        predicted = {name: classes.numpy() for name, classes in self._predicted.items()}
        outcomes = Outcomes(task.test.index.numpy(), task.test.images.labels.numpy(), survives, predicted)
        evaluation = Evaluation(
            self.subject, self._columns, preflight=self._findings, notes=[*task.test.images.notes],
            one_answer=self._one_answer, masking=masking, corruptions=self._corruptions, curve=self._curve(outcomes),
            seconds=time.perf_counter() - self._began, made=_now(),
        )  # fmt: skip
        when = breaking(*add(task.run.path, evaluation, outcomes, shown))
        thumbnails(task.test.images, outcomes.index, [*dict.fromkeys(when.first + when.last)]).write(self._folder)
        self._journal.remove()

    def _masking(self) -> Masking | None:
        """The verdict on gradient masking at the training's eps, from a probe and from the outcomes of all attacks.

        None if the model classifies no image correctly even without an attack.
        """
        right = self._clean.nonzero()[:, 0]
        if not len(right):
            return None
        threat = self._task.experiment.threat
        batch = self._evaluator.take(right[spread(self._task.test.images.labels[right], PROBED)])
        measured = probe(self._model, batch.x, batch.y, threat)
        survived = self._survived_before(threat.eps)
        survived |= {
            column.attack: self._survives[name] for name, column in self._columns.items() if column.eps == threat.eps
        }
        answer, signs = verdict(measured, survived, threat)
        self._note(f"gradient masking: {answer}")
        for text in signs:
            self._note(f"- {text}")
        return Masking(answer, signs, measured)

    def _survived_before(self, eps: float) -> dict[str, Tensor]:
        """Which images survived the attacks of earlier evaluations of this subject at a radius, by attack."""
        for stored in self._before:
            if stored.folder == self._folder:
                survives, columns = stored.outcomes().survives, stored.evaluation.columns.items()
                return {c.attack: torch.from_numpy(survives[name]) for name, c in columns if c.eps == eps}
        return {}

    def _examples(self) -> Examples:
        """A few test images before and after the last of the quick attacks, at the training's eps, for the report."""
        threat, images = self._task.experiment.threat, self._task.test.images
        batch = pick(images, spread(images.labels, EXAMPLES_SHOWN), self._task.device)
        suite = ((named.name, loaded.attack) for named, loaded in self._task.suite.items())
        quick: list[tuple[str, Attack]] = [(name, attack) for name, attack in suite if isinstance(attack, Fgsm | Pgd)]
        if not quick:
            blind = gradient_fault(self._model, batch.x[:2]) is not None
            quick = [("square", Square()) if blind else ("pgd-50", Pgd(50))]
        name, attack = quick[-1]
        return collect_examples(self._model, batch, threat, attack).stored(name, threat.eps)

    def _column(self, attack: str, eps: float, alive: Tensor) -> records.Column:
        correct = int(alive.sum())
        return records.Column(
            attack, eps, format_eps(eps), correct / len(alive), *wilson(correct, len(alive)), correct,
            exact=self._task.questions.exact, made=_now(), regmix=__version__,
        )  # fmt: skip

    def _add(self, name: str, column: records.Column, alive: Tensor) -> None:
        self._columns[name], self._survives[name] = column, alive
        self._task.progress.column(self.subject.checkpoint, name, column.accuracy, column.low, column.high)

    def _note(self, text: str) -> None:
        self._task.progress.note(f"{self.subject.checkpoint:<9} {text}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
