"""The evaluation of a run directory: attacks its checkpoints on the test split and saves the outcomes beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from regmix.attacks import NamedAttack
from regmix.config import from_json
from regmix.corruptions import Computed, OfficialFiles
from regmix.data import placed
from regmix.evaluation.checkpoint import CheckpointEvaluation
from regmix.evaluation.questions import Questions, check_attacks, check_open_number, source_weights
from regmix.evaluation.subject import (
    EvaluationImages,
    PlacedModel,
    check_images,
    choose_images,
    load_checkpoint,
    with_leaks,
)
from regmix.evaluation.task import Progress, Task, corruption_kinds, load_suite
from regmix.evaluation.until_narrow import fill_until_narrow
from regmix.runs import CONFIG, Checkpoint, Journal, Run
from regmix.runs.evaluations import has_columns
from regmix.runtime import devices
from regmix.threats import GREY, format_eps, turns_grey
from regmix.types import NO_TRUST, Trust, UserError


class Assessment:
    """The evaluation of the checkpoints of one run on the test split.

    After a kill, the same evaluation continues where it was. Under torchrun the processes share the work, and rank 0
    writes.
    """

    def __init__(
        self, run: Run, questions: Questions, test: EvaluationImages | None = None, trust: Trust = NO_TRUST
    ) -> None:
        """Checks what can be checked before a model is loaded.

        Args:
            test: the images that `questions` ask for, if they are loaded already.
            trust: which code may run that the run, or one of those that transfer attacks name, asks for.

        Raises:
            UserError: an unknown attack, one that is not made for the threat, two columns of one name, more images than
                there are, or images of other classes or of another shape than the run's.
        """
        self._run, self.questions, self._trust = run, questions, trust
        self._experiment = from_json(run.config(), run.path / CONFIG, trust)
        check_attacks(questions, self._experiment.threat, trust)
        check_open_number(questions)
        if test is None:
            own = placed(self._experiment.data, run.path)
            test = choose_images(own, questions.examples, questions.sample, questions.sample_seed)
            test = with_leaks(test, run, own, own)
        check_images(run, test.images)
        self.test = test

    @property
    def path(self) -> Path:
        """Of the run directory."""
        return self._run.path

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that have weights."""
        return self._run.checkpoints()

    def check_comparable(self, other: "Assessment") -> None:
        """Raises UserError unless another evaluation is about the same images, attacks and radii."""
        if (self.test.split, self.test.sample) != (other.test.split, other.test.sample):
            raise UserError(f"{self.path} and {other.path} have other test images; compare runs on the same data")
        mine, theirs = (each.questions.columns(each._experiment.threat) for each in (self, other))
        if [asked.threat for asked in mine.values()] != [asked.threat for asked in theirs.values()]:
            raise UserError(f"{self.path} and {other.path} have other threat models; give --eps, and runs of one norm")

    def run(
        self,
        checkpoints: Sequence[Checkpoint],
        device: devices.Device,
        progress: Progress,
        loaded: Mapping[Checkpoint, PlacedModel] | None = None,
    ) -> None:
        """Attacks checkpoints, and adds the outcomes to the run's evaluations.

        Args:
            checkpoints: which weights; empty means all that there are.
            loaded: models that are loaded already, by checkpoint.

        Raises:
            UserError: missing weights, missing files of corruptions, or a model that cannot be evaluated.
        """
        questions, test = self.questions, self.test
        begun = self.begin(checkpoints, device, progress, loaded)
        if questions.within is None:
            for evaluation in begun:
                evaluation.fill(torch.arange(len(test.images)), last=True)
                finish([evaluation])
        else:
            evaluations = [*begun]
            progress.note(fill_until_narrow(evaluations, test, questions.within, questions.sample_seed))
            finish(evaluations)

    def begin(
        self,
        checkpoints: Sequence[Checkpoint],
        device: devices.Device,
        progress: Progress,
        loaded: Mapping[Checkpoint, PlacedModel] | None = None,
    ) -> Iterator[CheckpointEvaluation]:
        """The evaluations of checkpoints whose tables are still empty; arguments and errors as in `run`."""
        there = self._run.checkpoints()
        if missing := [name for name in checkpoints if name not in there] or (not there and ["best"]):
            raise UserError(
                f"{self._run.path} has no {', '.join(missing)} weights; it has: {', '.join(there) or 'none yet'}"
            )
        if not checkpoints and (text := self._run.without_best()):
            progress.note(text)
        questions, test = self.questions, self.test
        source = (
            Computed() if questions.corruption_files is None else OfficialFiles(questions.corruption_files, test.index)
        )
        kinds = corruption_kinds(questions, source, test.images)
        threat = self._experiment.threat
        grey = [eps for eps in questions.eps or [threat.eps] if turns_grey(threat.name, eps)]
        whole = [test.sample.text()] if questions.within is None else []
        for note in (*test.images.notes, *(f"eps {format_eps(eps)}: {GREY}" for eps in grey), *whole):
            progress.note(note)
        place = devices.start(device, "32", patient=True).device
        suite = load_suite(questions, test, self._experiment.threat, place, self._trust)
        task = Task(self._run, self._experiment, questions, test, place, progress, suite, source, kinds)
        stored, known = self._run.evaluations(), dict[str, tuple[Checkpoint, Journal]]()
        for checkpoint in checkpoints or there:
            model = (loaded or {}).get(checkpoint)
            if model is None:
                model = load_checkpoint(self._experiment, self._run, checkpoint, test.images, place)
            before = [one for one in stored if one.evaluation.subject.checkpoint == checkpoint]
            evaluation = CheckpointEvaluation(task, checkpoint, model, before)
            first, journal = known.setdefault(model.weights, (checkpoint, evaluation.journal))
            # Images are saved when they are found, and with --within no evaluation is finished before the others.
            if first != checkpoint and not questions.save and questions.within is None:
                evaluation.take_over(first, journal)
            evaluation.check()
            yield evaluation


def finish(evaluations: Sequence[CheckpointEvaluation]) -> None:
    """Measures what comes after the attacks, and writes evaluations whose tables are full."""
    for evaluation in evaluations:
        evaluation.find_smallest()
        evaluation.corrupt()
        evaluation.write()
    for evaluation in evaluations:
        evaluation.forget()


def missing(
    run: Run, questions: Questions, test: EvaluationImages, checkpoints: Sequence[Checkpoint] = ()
) -> list[Questions]:
    """What of these questions the evaluations of a run do not answer yet; empty if they answer all.

    Attacks that are missing at the same radii are asked together. Nothing is loaded, so that records without weights
    can be asked, too.

    Args:
        checkpoints: of which weights; empty means all that there are.
    """
    threat = from_json(run.config(), run.path / CONFIG, Trust(everything=True), reads_data=False).threat
    images, wanted = (test.sample, test.split, questions.draws), {*(checkpoints or run.checkpoints())}
    held = [each.evaluation for each in run.evaluations() if not each.outdated and each.evaluation.images == images]
    latest = {each.subject.checkpoint: each for each in held if each.subject.checkpoint in wanted}
    if {*latest} != wanted:
        return [questions]
    known = [*latest.values()]
    sources = {named: source_weights(named) for named in questions.attacks}
    radii: dict[tuple[NamedAttack, ...], list[float]] = {}
    for eps in questions.eps or [threat.eps]:
        lacking = tuple(
            named
            for named in questions.attacks
            if not all(has_columns({named.column(eps): sources[named]}, each) for each in known)
        )
        if lacking:
            radii.setdefault(lacking, []).append(eps)
    left = [replace(questions, attacks=attacks, eps=eps, verdict=False) for attacks, eps in radii.items()]
    # The verdict rests on all attacks, so new ones ask for a new one.
    if questions.verdict and (left or not all(each.is_probed for each in known)):
        left = [*left[:-1], replace(left[-1] if left else replace(questions, attacks=()), verdict=True)]
    return left
