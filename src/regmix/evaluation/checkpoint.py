"""The evaluation of one checkpoint: first the clean images, then one attack after the other, corruptions, a verdict."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import torch
from torch import Tensor

from regmix import __version__
from regmix.attacks import CLEAN, Eot, Minimal, passes
from regmix.data import spread
from regmix.evaluation.chunks import Spent, repeatable
from regmix.evaluation.corrupting import under_corruptions
from regmix.evaluation.curve import Smallest, curve_text, merged_curve
from regmix.evaluation.earlier import check_same_model, check_sources, joined, other_images, survived_at
from regmix.evaluation.evaluator import Evaluator
from regmix.evaluation.examples import shown_examples, write_loss_surfaces
from regmix.evaluation.filling import Filling
from regmix.evaluation.masking import judged
from regmix.evaluation.one_answer import one_answer
from regmix.evaluation.outcomes import wilson
from regmix.evaluation.per_image import write_images
from regmix.evaluation.preflight import LOOKED_AT, RANDOM, preflight
from regmix.evaluation.saved import recheck, saver
from regmix.evaluation.subject import PlacedModel, journal_key, package_digest
from regmix.evaluation.task import Task
from regmix.models import Answers, changed_code, code_files, users_code
from regmix.runs import Checkpoint, Journal, records
from regmix.runs.evaluations import Outcomes, Stored, add, checked_folder, settings_digest
from regmix.runs.records import Corruptions, Evaluation, Masking, Subject
from regmix.runtime import processes
from regmix.threats import format_eps
from regmix.types import OneAnswer, Sample, UserError

Interval = Callable[[int, int], tuple[float, float]]
"""From the number of correct images, and of all images, to an interval of the accuracy."""
PROBED = 64
"""How many images the probe for masked gradients looks at."""


class CheckpointEvaluation:
    """What an evaluation finds out about one checkpoint of a run. The methods are called in their order."""

    def __init__(self, task: Task, checkpoint: Checkpoint, loaded: PlacedModel, before: Sequence[Stored]) -> None:
        """before: the evaluations of this checkpoint that the run has already, the latest last."""
        if isinstance(loaded.model, Answers):
            task = task.without_gradients()
        self._task, self._loaded, self._before = task, loaded, before
        questions, test, run = task.questions, task.test, task.run
        self.subject = Subject(
            checkpoint, loaded.weights, settings_digest(run.config()), test.split, test.sample,
            questions.draws, users_code(loaded.model, task.experiment.model),
        )  # fmt: skip
        if processes.from_first(self.subject.key) != self.subject.key:
            raise UserError(f"{run.path} changed while its weights were read; evaluate it again")
        self._folder = checked_folder(run.path, self.subject)
        self._rank = processes.rank()
        self._code = code_files(loaded.model, task.experiment.model)
        self.journal, self._package = self._journal(), package_digest()
        self._journals = [self.journal]
        self._model = Eot(loaded.model, questions.draws) if questions.draws > 1 else loaded.model
        self._evaluator = Evaluator(
            self._model, test.images, task.device, questions.batch_size, self.journal, task.progress.work
        )
        self._fillings = [Filling(column, len(test.images)) for column in task.columns()]
        self._began, self._clean_spent = time.perf_counter(), Spent()
        self._columns: dict[str, records.Column] = {}
        self._survives: dict[str, Tensor] = {}
        self._predicted: dict[str, Tensor] = {}
        self._corruptions: list[Corruptions] = []
        self._smallest = Smallest()
        self._findings: list[str] = []
        self._one_answer: OneAnswer | None = None
        self._interval: Interval | None = None
        self._within: float | None = None
        self._rule, self._looks = "", 0

    def take_over(self, checkpoint: Checkpoint, journal: Journal) -> None:
        """Takes the results of another checkpoint whose weights are the same, by this command."""
        self.journal.take_over(journal)
        self._note(f"the same weights as {checkpoint}, so its results are the same")

    def _journal(self) -> Journal:
        """A journal of its own for every set of images, whose rows are counted from 0."""
        return Journal(self._folder, journal_key(self.subject, self._code, self._task.questions), self._rank)

    def check(self) -> None:
        """Looks for what would make the numbers meaningless."""
        task, images = self._task, self._task.test.images
        if (earlier := joined(self._before, self._folder)) is not None:
            check_sources({filling.column.name: filling.column.source for filling in self._fillings}, earlier)
        if text := other_images(self._before, task.test.split):
            self._note(text)
        some = self._evaluator.take(spread(images.labels, LOOKED_AT))
        attacks = {named.name: loaded.attack for named, loaded in task.suite.items()}
        attacks |= {named.name: named.attack for named in task.questions.curve if named.attack is not None}
        with repeatable("preflight", task.device):
            self._findings = preflight(self._model, some.x, some.y, len(images.classes), attacks)
        if (changed := changed_code(task.run.environment().code, self.subject.code)) is not None:
            self._findings.append(changed)
        for finding in ([self._loaded.layout] if self._loaded.layout else []) + self._findings:
            self._note(finding)
        self._model.eval()
        self._predicted[CLEAN] = torch.full_like(images.labels, -1)
        self._clean = torch.zeros_like(images.labels, dtype=torch.bool)

    def fill(self, rows: Tensor, *, last: bool) -> None:
        """Predicts more of the images, and runs every attack at every radius on those that are classified correctly.

        Args:
            rows: their positions among the images of the task.
            last: no others will follow, so that every column is told as soon as it is full.
        """
        block = torch.zeros_like(self._clean)
        block[rows] = True
        most = len(rows) * (1 + sum(passes(filling.column.attack) for filling in self._fillings))
        self._task.progress.stage(f"{self.subject.checkpoint}, {CLEAN}", most)
        predicted, spent = processes.from_first(self._evaluator.predictions(rows))
        self._clean_spent = Spent(*map(sum, zip(self._clean_spent, spent, strict=True)))
        self._predicted[CLEAN][rows] = predicted
        self._clean |= block & (self._predicted[CLEAN] == self._task.test.images.labels)
        if last:
            self._tell_clean()
        correct = self._clean & block
        for number, filling in enumerate(self._fillings, 1):
            later = int(correct.sum()) * sum(passes(other.column.attack) for other in self._fillings[number:])
            self._attack(filling, correct, later)
            if last:
                self._tell(filling)

    def _attack(self, filling: Filling, correct: Tensor, later: int) -> None:
        """Runs one attack. later: the work of the attacks that follow it."""
        task, column = self._task, filling.column
        keep = saver(self._folder, column.name, task.test, column.asked.threat) if task.questions.save else None

        def show(number: int, left: int) -> None:
            stage = f": {column.stages[number][0]}" if len(column.stages) > 1 else ""
            rest = left * sum(passes(attack) for _, attack in column.stages[number:])
            task.progress.stage(f"{self.subject.checkpoint}, {column.name}{stage}", rest + later)

        filling.attack(self._evaluator, correct, self._predicted[CLEAN], task.questions.exact, keep, show)

    def _tell_clean(self) -> None:
        """Adds the column of the clean images."""
        images = self._task.test.images
        earlier = joined(self._before, self._folder)
        if earlier is not None and not any(text.startswith(RANDOM) for text in self._findings):
            check_same_model(self._clean, self._task.questions.batch_size, earlier)
        self._one_answer = one_answer(self._predicted[CLEAN], images.labels, images.classes)
        if self._one_answer is not None:
            self._findings.append(told := self._one_answer.text("the test images"))
            self._note(told)
        cost = self._clean_spent.cost(len(images))
        self._add(CLEAN, replace(self._column(CLEAN, 0.0, self._clean), cost=cost), self._clean)

    def _tell(self, filling: Filling) -> None:
        """Adds the column of an attack."""
        task, column, alive = self._task, filling.column, filling.survives
        record = filling.record(self._column(column.asked.named.name, column.asked.threat.eps, alive))
        if task.questions.save and not self._rank:
            broken = self._clean & ~alive
            with repeatable(f"{column.name}, saved", task.device):
                rounded = recheck(self._model, self._folder, column.name, task.test, broken, task.device)
            record = replace(record, rounded=rounded)
        self._add(column.name, record, alive)
        self._predicted[column.name] = filling.predicted
        for note in filter(None, [record.note, *filling.remarks]):
            self._note(note)

    def survives(self, rows: Tensor | slice = slice(None)) -> dict[str, Tensor]:
        """Which of these images survive, by column, and the worst case of several attacks at a radius and below it."""
        table = {CLEAN: self._clean[rows]}
        attacked = {filling.column.name: filling.survives[rows] for filling in self._fillings}
        radii = {filling.column.name: filling.column.asked.threat.eps for filling in self._fillings}
        worst = {}
        for eps in dict.fromkeys(radii.values()):
            within = [attacked[name] for name, radius in radii.items() if radius <= eps]
            if len(within) > 1:
                worst[f"worst case@{format_eps(eps)}"] = torch.stack(within).all(0)
        return table | attacked | worst

    def settle(
        self, rows: Tensor, sample: Sample, interval: Interval, rule: str, within: float | None, looks: int
    ) -> None:
        """Ends an evaluation whose number of images was open: it is about these images only from now on.

        Args:
            rows: their positions in the split.
            sample: what to call them.
            interval: of a column.
            rule: how the number of images was chosen, for the report.
            within: the half width that the rule promises for every column; None if it looked at other numbers.
            looks: how often it may have looked at such other numbers; else 0.
        """
        task = self._task = self._task.only(rows, sample)
        self.subject = replace(self.subject, sample=sample)
        self._folder = checked_folder(task.run.path, self.subject)
        self._journals.append(self._journal())
        self._evaluator = replace(self._evaluator, images=task.test.images, journal=self._journals[-1])
        self._clean, self._interval = self._clean[rows], interval
        self._rule, self._within, self._looks = rule, within, looks
        self._predicted[CLEAN] = self._predicted[CLEAN][rows]
        self._tell_clean()
        for filling in self._fillings:
            filling.keep(rows)
            self._tell(filling)

    def find_smallest(self) -> None:
        """Finds the smallest perturbation of every image, by every attack of the curve."""
        task = self._task
        for number, named in enumerate(task.questions.curve):
            assert isinstance(named.attack, Minimal), "checked before"
            later = sum(passes(other.attack) for other in task.questions.curve[number:] if other.attack is not None)
            task.progress.stage(f"{self.subject.checkpoint}, smallest by {named.name}", int(self._clean.sum()) * later)
            found, idle, spent = self._evaluator.distances(
                named.attack, task.experiment.threat, self._clean, named.name
            )
            self._smallest.distances[named.name], self._smallest.without_gradient[named.name] = found.numpy(), idle
            cost = self._smallest.costs[named.name] = spent.cost(int(self._clean.sum()))
            self._note(f"smallest perturbation by {named.name} took {cost.text()}")

    def _with_curve(self, whole: Evaluation, outcomes: Outcomes) -> Evaluation:
        """The evaluation with the curve that follows from all of its distances and columns."""
        drawn = merged_curve(self._folder, self._smallest, whole, outcomes)
        if drawn is None:
            return whole
        self._note(curve_text(drawn))
        return replace(whole, curve=drawn)

    def corrupt(self) -> None:
        """Measures the accuracy under every corruption at every severity."""
        if self._task.kinds:
            self._corruptions.append(under_corruptions(self._evaluator, self._task, self.subject.checkpoint))

    def write(self) -> None:
        """Gives the verdict on masking, and adds everything to the run's evaluations; rank 0 writes."""
        task = self._task
        with repeatable("verdict", task.device):
            masking = self._masking() if task.questions.verdict else None
            shown = shown_examples(self._model, task) if task.suite else None
        if self._rank:
            return
        survives, predicted = (
            {name: values.numpy() for name, values in table.items()} for table in (self._survives, self._predicted)
        )
        outcomes = Outcomes(task.test.index.numpy(), task.test.images.labels.numpy(), survives, predicted)
        evaluation = Evaluation(
            self.subject, self._columns, preflight=self._findings, notes=[*task.test.images.notes],
            elsewhere=task.test.elsewhere, one_answer=self._one_answer, masking=masking, corruptions=self._corruptions,
            seconds=time.perf_counter() - self._began, made=_now(),
        )  # fmt: skip
        merged = add(task.run.path, evaluation, outcomes, shown, self._with_curve)
        write_images(self._folder, *merged, task.test.images)
        write_loss_surfaces(self._folder, self._model, task, shown)

    def forget(self) -> None:
        """Deletes the journals: the evaluation is written."""
        if not self._rank:
            for journal in self._journals:
                journal.remove()

    def _masking(self) -> Masking | None:
        """The verdict on gradient masking at the training's eps, from a probe and from the outcomes of all attacks.

        None if the model classifies no image correctly even without an attack.
        """
        right = self._clean.nonzero()[:, 0]
        if not len(right):
            return None
        threat = self._task.experiment.threat
        batch = self._evaluator.take(right[spread(self._task.test.images.labels[right], PROBED)])
        survived = survived_at(threat.eps, joined(self._before, self._folder))
        survived |= {c.attack: self._survives[name] for name, c in self._columns.items() if c.eps == threat.eps}
        found = judged(self._model, batch, survived, threat)
        for text in (f"gradient masking: {found.verdict}", *(f"- {sign}" for sign in found.signs)):
            self._note(text)
        return found

    def _column(self, attack: str, eps: float, alive: Tensor) -> records.Column:
        correct, count = int(alive.sum()), len(alive)
        interval = self._interval(correct, count) if self._interval else wilson(correct, count)
        return records.Column(
            attack, eps, format_eps(eps), correct / count, *interval, correct, exact=self._task.questions.exact,
            batch_size=self._task.questions.batch_size, made=_now(), regmix=__version__,
            package=self._package, within=self._within, rule=self._rule, looks=self._looks,
        )  # fmt: skip

    def _add(self, name: str, column: records.Column, alive: Tensor) -> None:
        self._columns[name], self._survives[name] = column, alive
        numbers = (column.accuracy, column.low, column.high, column.cost.text() if column.cost else "")
        self._task.progress.column(self.subject.checkpoint, name, *numbers)

    def _note(self, text: str) -> None:
        self._task.progress.note(f"{self.subject.checkpoint:<9} {text}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
