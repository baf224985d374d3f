"""The evaluation of a run: attacks its checkpoints on the test split and writes what came out beside them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from regmix import __version__
from regmix.attacks import Attack, Ensemble, Eot, Fgsm, Pgd, Square, Transfer, parse_attack, passes
from regmix.config import Experiment, from_json
from regmix.corruptions import Computed, OfficialFiles
from regmix.data import ImageSet, batches, changes, pick, spread
from regmix.evaluation import (
    CLEAN,
    collect_examples,
    gradient_fault,
    not_attacked_note,
    one_answer,
    predict,
    preflight,
    probe,
    repeatable,
    survivors,
    to_uint8,
    verdict,
    wilson,
    withstood,
)
from regmix.evaluation.questions import TRANSFER, Asked, Questions, check_attacks, transfer_source
from regmix.evaluation.screening import SCREENED
from regmix.evaluation.subject import Chosen, check_images, choose_images, is_users, journal_key, load_checkpoint
from regmix.models import code_files
from regmix.objectives import hard
from regmix.runs import CONFIG, Checkpoint, Journal, Run
from regmix.runs.adversarial import load_adversarial, save_adversarial, save_adversarial_table
from regmix.runs.evaluations import Examples, Outcomes, add, folder_of, settings_digest
from regmix.runs.records import Column, Corruptions, Evaluation, Masking, Rounded, Source, Stage, Subject
from regmix.runtime import devices, processes
from regmix.runtime.files import digest
from regmix.runtime.layout import settle
from regmix.threats import Threat, format_eps
from regmix.types import NO_TRUST, Trust, UserError

EXAMPLES_SHOWN = 8
PREFLIGHT, PROBED = 100, 64
"""How many images the checks before the attacks and the probe for masked gradients look at."""


class Progress(Protocol):
    """Shows the evaluation to whoever waits for it."""

    def stage(self, description: str, left: int) -> None: ...
    def work(self, amount: int) -> None: ...
    def note(self, text: str) -> None: ...
    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float) -> None: ...
    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None: ...


def assess(
    directory: Run, questions: Questions, checkpoints: Sequence[Checkpoint], device: devices.Device, progress: Progress,
    trust: Trust = NO_TRUST,
) -> None:  # fmt: skip
    """Attacks a run's checkpoints on the test split, and adds what comes out to the run's evaluations.

    Args:
        checkpoints: which weights; empty means all that there are.
        trust: which code may run that the run, or one of those that transfer attacks name, asks for.

    Started again after a kill it goes on where it was. Under torchrun the processes share the work; the first writes.

    Raises:
        UserError: an unknown attack, one that is not made for the threat or would have the name of another, missing
            weights, more examples than there are, images of other classes or of another shape than the run's.
    """
    experiment = from_json(directory.config(), directory.path / CONFIG, trust)
    threats = [replace(experiment.threat, eps=radius) for radius in questions.eps] or [experiment.threat]
    there = directory.checkpoints()
    if missing := [checkpoint for checkpoint in checkpoints if checkpoint not in there] or (not there and ["best"]):
        raise UserError(
            f"{directory.path} has no {', '.join(missing)} weights; it has: {', '.join(there) or 'none yet'}"
        )
    check_attacks(questions.attacks, threats, trust)
    if questions.batch_size < 1:
        raise UserError(f"the batch size must be at least 1, not {questions.batch_size}")
    test = choose_images(experiment.data, questions.examples, questions.sample, questions.sample_seed)
    check_images(directory, test.images)
    source = Computed() if questions.corruption_files is None else OfficialFiles(questions.corruption_files, test.index)
    kinds = _kinds(questions, source, test.images)
    for note in (*test.images.notes, test.sample.text()):
        progress.note(note)
    place = devices.start(device, "32", patient=True).device
    suite = {Asked(name): _attack(name, test.images, place, trust) for name in questions.attacks if name != CLEAN}
    for checkpoint in checkpoints or there:
        model, weights = load_checkpoint(experiment, directory, checkpoint, test.images)
        one = _Assessment(
            directory, experiment, questions, checkpoint, weights, model.to(place), test, place, progress, suite
        )  # fmt: skip
        one.attack(threats, suite)
        one.ask_about_corruptions(kinds, source)
        one.write(suite)


class _Assessment:
    """What attacks find about one checkpoint of a run: first the clean images, then one attack after the other."""

    def __init__(
        self, directory: Run, experiment: Experiment, questions: Questions, checkpoint: Checkpoint, weights: str,
        model: nn.Module, test: Chosen, place: torch.device, progress: Progress, suite: Mapping[Asked, Attack],
    ) -> None:  # fmt: skip
        self._directory, self._questions, self._threat = directory, questions, experiment.threat
        self._test, self._place, self._progress = test, place, progress
        self._world = processes.Processes()
        code = [path.resolve() for path in code_files(model, experiment.model)]
        self.subject = Subject(
            checkpoint, weights, settings_digest(json.loads(directory.config())), test.split, test.sample,
            questions.draws, {str(path): digest(path) for path in code if is_users(path)},
        )  # fmt: skip
        if processes.from_first(self.subject.key) != self.subject.key:
            raise UserError(f"{directory.path} changed while its weights were read; evaluate it again")
        self._folder = folder_of(directory.path, self.subject)
        if not self._folder.resolve().is_relative_to(directory.path.resolve()):
            raise UserError(f"{self._folder} leads out of {directory.path} through a link; remove it")
        self._journal = Journal(self._folder, journal_key(self.subject, code, questions), self._world.rank)
        self._model = Eot(model, questions.draws) if questions.draws > 1 else model
        self._began = time.perf_counter()
        self._columns: dict[str, Column] = {}
        self._survives: dict[str, Tensor] = {}
        self._corruptions: list[Corruptions] = []
        self._tell_of_other_images()
        some = pick(test.images, spread(test.images.labels, PREFLIGHT), place)
        layout = settle(model, some.x[:2])
        attacks = {asked.name: attack for asked, attack in suite.items()}
        self._findings = preflight(self._model, some.x, hard(some.y), len(test.images.classes), attacks)
        if layout is not None:
            self._note(layout)
        for finding in self._findings:
            self._note(finding)
        self._model.eval()
        with repeatable(CLEAN, place):
            stream = batches(test.images, questions.batch_size, place)
            seen = [predict(self._model, batch.x, batch.y).cpu() for batch in stream]
        predicted = processes.from_first(torch.cat(seen))
        self._clean = predicted == test.images.labels
        self._one_answer = one_answer(predicted, test.images.labels, test.images.classes)
        if self._one_answer is not None:
            self._findings.append(self._one_answer.text("the test images"))
            self._note(self._findings[-1])
        self._add(CLEAN, self._column(CLEAN, 0.0, self._clean), self._clean)

    def attack(self, threats: Sequence[Threat], suite: dict[Asked, Attack]) -> None:
        """Runs every attack at every radius on the images that are classified correctly without one."""
        todo = [(threat, asked, attack) for threat in threats for asked, attack in suite.items()]
        for number, (threat, asked, attack) in enumerate(todo):
            later = int(self._clean.sum()) * sum(passes(other) for _, _, other in todo[number + 1 :])
            self._run(threat, asked, attack, later)

    def _run(self, threat: Threat, asked: Asked, attack: Attack, later: int) -> None:
        name, questions = asked.column(threat.eps), self._questions
        source = _source(asked)
        noted = f"{asked.name if source is None else TRANSFER + source.weights}@{threat.eps!r}"
        stages = attack.under(threat) if isinstance(attack, Ensemble) else ((asked.name, attack),)
        alive, untried, began, told = self._clean, self._clean, time.perf_counter(), []
        remarks: dict[str, None] = {}  # told once, of however many stages they are true

        def save(rows: Sequence[int], x: Tensor, bad: Tensor) -> None:
            save_adversarial(self._folder, name, self._test.index[list(rows)].tolist(), to_uint8(x, bad, threat))

        for position, (stage, part) in enumerate(stages):
            rest = int(alive.sum()) * sum(passes(other) for _, other in stages[position:])
            title = f"{self.subject.checkpoint}, {name}" + (f": {stage}" if len(stages) > 1 else "")
            self._progress.stage(title, rest + later)
            alive, idle = survivors(
                self._model, lambda index: pick(self._test.images, index, self._place), alive, part, threat,
                name=f"{noted}/{stage}", batch_size=questions.batch_size,
                screen=not questions.exact and isinstance(part, SCREENED), journal=self._journal, world=self._world,
                on_work=self._progress.work, keep=save if questions.save else None, note=remarks.setdefault,
            )  # fmt: skip
            untried = untried & idle & alive
            told.append(Stage(stage, float(alive.double().mean()), time.perf_counter() - began))
        column = replace(self._column(asked.short, threat.eps, alive), source=source)
        if isinstance(attack, Ensemble):
            column = replace(column, stages=told, note=attack.note)
        if idle_note := not_attacked_note(int(untried.sum()), len(untried)):
            column = replace(column, not_attacked=int(untried.sum()), note=f"{idle_note}. {column.note}".strip())
        if questions.save and self._world.rank == 0:
            column = replace(column, rounded=self._recheck(name, self._clean & ~alive))
        self._add(name, column, alive)
        for note in [column.note, *remarks] if column.note else remarks:
            self._note(note)

    def _column(self, attack: str, eps: float, alive: Tensor) -> Column:
        correct = int(alive.sum())
        return Column(
            attack, eps, format_eps(eps), correct / len(alive), *wilson(correct, len(alive)), correct,
            exact=self._questions.exact, made=_now(), regmix=__version__,
        )  # fmt: skip

    def _add(self, name: str, column: Column, alive: Tensor) -> None:
        self._columns[name], self._survives[name] = column, alive
        self._progress.column(self.subject.checkpoint, name, column.accuracy, column.low, column.high)

    def _note(self, text: str) -> None:
        self._progress.note(f"{self.subject.checkpoint:<9} {text}")

    def _tell_of_other_images(self) -> None:
        before = [
            one.evaluation for one in self._directory.evaluations()
            if one.evaluation.subject.checkpoint == self.subject.checkpoint
        ]  # fmt: skip
        if before and (text := changes(before[-1].subject.data, self._test.split)):
            self._note(
                f"the test images are not those of the evaluation of {before[-1].made[:10]}: {text}; "
                "this is another evaluation beside it"
            )

    def _recheck(self, name: str, broken: Tensor) -> Rounded:
        """Asks the model about the adversarial images as they lie on the disk; writes adversarial.npz beside them."""
        split = self._test.index[broken]
        rows, images = load_adversarial(self._folder, name, split.tolist())
        labels = self._test.images.labels[torch.searchsorted(self._test.index, torch.tensor(rows, dtype=torch.long))]
        stream = batches(ImageSet(images, labels, self._test.images.classes), 250, self._place)
        seen = [predict(self._model, batch.x, batch.y).cpu() for batch in stream]
        prediction = torch.cat(seen) if seen else labels
        save_adversarial_table(
            self._folder, name, images=images.numpy(), index=np.array(rows), label=labels.numpy(),
            prediction=prediction.numpy(),
        )  # fmt: skip
        return Rounded(len(rows), int((prediction != labels).sum()))

    def _masking(self) -> Masking | None:
        """The verdict on gradient masking at the training's eps, from a probe and from all that attacks have found.

        None where no image is classified correctly even without an attack.
        """
        right = self._clean.nonzero()[:, 0]
        if not len(right):
            return None
        labels = self._test.images.labels[right]
        batch = pick(self._test.images, right[spread(labels, PROBED)], self._place)
        found = probe(self._model, batch.x, hard(batch.y), self._threat)
        survived = self._survived_before()
        survived |= {
            column.attack: self._survives[name]
            for name, column in self._columns.items()
            if column.eps == self._threat.eps
        }
        masked, signs = verdict(found, survived, self._threat)
        self._note(f"gradient masking: {masked}")
        for text in signs:
            self._note(f"- {text}")
        return Masking(masked, signs, asdict(found))

    def _survived_before(self) -> dict[str, Tensor]:
        """Which images survived the attacks of earlier evaluations of this subject, at the training's eps."""
        for one in self._directory.evaluations():
            if one.folder == self._folder:
                table = one.outcomes().survives
                columns = one.evaluation.columns.items()
                return {c.attack: torch.from_numpy(table[name]) for name, c in columns if c.eps == self._threat.eps}
        return {}

    def ask_about_corruptions(self, kinds: Sequence[tuple[str, int]], source: Computed | OfficialFiles) -> None:
        """The accuracy under every corruption at every severity."""
        if not kinds:
            return
        images, questions = self._test.images, self._questions
        self._progress.stage(f"{self.subject.checkpoint}, corruptions", len(kinds) * len(images))
        right = withstood(
            self._model, images.labels, kinds, partial(source.images, images=images.pixels(), labels=images.labels),
            batch_size=questions.batch_size, device=self._place, journal=self._journal, world=self._world,
            on_work=self._progress.work,
        )  # fmt: skip
        found: dict[str, dict[int, float]] = {}
        for (name, severity), share in zip(kinds, right.double().mean(1).tolist(), strict=True):
            found.setdefault(name, {})[severity] = share
        for name, row in found.items():
            self._progress.corruption(self.subject.checkpoint, name, [*row.values()])
        means = [sum(column) / len(found) for column in zip(*(row.values() for row in found.values()), strict=True)]
        self._progress.corruption(self.subject.checkpoint, "mean of all", means)
        folder = questions.corruption_files
        self._corruptions.append(Corruptions("computed" if folder is None else str(folder), found))

    def write(self, suite: dict[Asked, Attack]) -> None:
        """Adds everything to the run's evaluations; of several processes the first does."""
        masking = self._masking() if self._questions.verdict else None
        quick = [(asked.name, attack) for asked, attack in suite.items() if isinstance(attack, Fgsm | Pgd)]
        shown = _examples(self._model, self._test.images, self._threat, quick, self._place) if suite else None
        if self._world.rank == 0:
            index, labels = self._test.index.numpy(), self._test.images.labels.numpy()
            survives = {name: alive.numpy() for name, alive in self._survives.items()}
            seconds = time.perf_counter() - self._began
            found = Evaluation(
                self.subject, self._columns, preflight=self._findings, notes=[*self._test.images.notes],
                one_answer=self._one_answer, masking=masking,
                corruptions=self._corruptions, seconds=seconds, made=_now(),
            )  # fmt: skip
            add(self._directory.path, found, Outcomes(index, labels, survives), shown)
            self._journal.remove()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _attack(name: str, test: ImageSet, place: torch.device, trust: Trust) -> Attack:
    if not name.startswith(TRANSFER):
        return parse_attack(name)
    source, experiment = transfer_source(name, trust)
    check_images(source, test)
    model, _ = load_checkpoint(experiment, source, source.checkpoints()[0], test)
    settle(model.to(place), pick(test, torch.arange(min(len(test), 2)), place).x)
    return Transfer(model.eval())


def _source(asked: Asked) -> Source | None:
    """The weights that a transfer attack takes its examples from."""
    if not asked.is_transfer:
        return None
    run = Run.open(Path(asked.name.removeprefix(TRANSFER)))
    path = run.weights(run.checkpoints()[0])
    return Source(str(path.resolve()), digest(path))


def _kinds(questions: Questions, source: Computed | OfficialFiles, test: ImageSet) -> list[tuple[str, int]]:
    """The corruptions that are asked for, with their severities; what is missing is missed now."""
    names = source.names() if list(questions.corruptions) == ["all"] else questions.corruptions
    kinds = [(name, severity) for name in names for severity in questions.severities]
    for kind in kinds:
        source.images(*kind, test.subset(torch.arange(1)).pixels(), test.labels[:1])
    return kinds


def _examples(
    model: nn.Module, test: ImageSet, threat: Threat, quick: Sequence[tuple[str, Attack]], place: torch.device
) -> Examples:
    """A few test images before and after the last of the quick attacks, at the training's eps, for the report."""
    batch = pick(test, spread(test.labels, EXAMPLES_SHOWN), place)
    name, attack = quick[-1] if quick else ("pgd-50", Pgd(50))
    if not quick and gradient_fault(model, batch.x[:2]) is not None:
        name, attack = "square", Square()
    few = {key: value.numpy() for key, value in vars(collect_examples(model, batch, threat, attack)).items()}
    few["x"] = (few["x"] * 255).round().astype("uint8")
    return Examples(**few, attack=name, eps=threat.eps)
