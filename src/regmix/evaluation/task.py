"""What the evaluations of all checkpoints of a run share: images, loaded attacks, corruptions, and a display."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from regmix.attacks import TRANSFER, Attack, Ensemble, NamedAttack, Transfer
from regmix.config import Experiment
from regmix.corruptions import Computed, OfficialFiles
from regmix.data import ImageSet, pick
from regmix.evaluation.answers import gradient_fault
from regmix.evaluation.given import load_given
from regmix.evaluation.questions import Asked, Questions, open_source
from regmix.evaluation.subject import EvaluationImages, check_images, load_checkpoint
from regmix.models import users_code
from regmix.runs import Run
from regmix.runs.evaluations import settings_digest
from regmix.runs.records import Source
from regmix.threats import ThreatConfig
from regmix.types import Sample, Trust, UserError


class Progress(Protocol):
    """Shows the evaluation to the user."""

    def stage(self, description: str, left: int) -> None: ...
    def work(self, amount: int) -> None: ...
    def note(self, text: str) -> None: ...
    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float, cost: str) -> None: ...
    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None: ...


class LoadedAttack(NamedTuple):
    """An attack that can run, and the weights that it transfers from, or the file that its images are from."""

    attack: Attack
    source: Source | None


class Column(NamedTuple):
    """An attack at a radius, ready to run."""

    asked: Asked
    attack: Attack
    source: Source | None

    @property
    def name(self) -> str:
        """Of the column in outcomes.csv."""
        return self.asked.column

    @property
    def stages(self) -> tuple[tuple[str, Attack], ...]:
        """The attacks of an ensemble by name; another attack is its only stage."""
        if isinstance(self.attack, Ensemble):
            return self.attack.under(self.asked.threat)
        return ((self.asked.named.name, self.attack),)

    def in_journal(self, stage: str) -> str:
        """The name of a stage in the journal, where a transfer attack counts by the model that it comes from."""
        name, source = self.asked.named.name, self.source
        if source is not None:
            name = "/".join([f"{TRANSFER}{source.weights}", source.settings, *source.code.values()])
        return f"{name}@{self.asked.threat.eps!r}/{stage}"


@dataclass(frozen=True, eq=False)
class Task:
    """The evaluation that every checkpoint of a run gets."""

    run: Run
    experiment: Experiment
    questions: Questions
    test: EvaluationImages
    device: torch.device
    progress: Progress
    suite: Mapping[NamedAttack, LoadedAttack]
    corruptions: Computed | OfficialFiles
    kinds: Sequence[tuple[str, int]]
    """Names and severities of the corruptions."""

    def only(self, rows: Tensor, sample: Sample) -> "Task":
        """The task for the images at these positions only."""
        test, source = self.test.only(rows, sample), self.corruptions
        if isinstance(source, OfficialFiles):
            source = replace(source, positions=test.index)
        return replace(self, test=test, corruptions=source)

    def without_gradients(self) -> "Task":
        """The task for a black box: no fast copy, and no probe for gradient masking.

        Raises:
            UserError: several passes are to be averaged.
        """
        if self.questions.draws > 1:
            raise UserError("--draws averages a model's logits, which a black box does not give; leave it out")
        return replace(self, questions=replace(self.questions, exact=True, verdict=False))

    def columns(self) -> Iterator[Column]:
        """Every attack at every radius, radius by radius."""
        for asked in self.questions.columns(self.experiment.threat).values():
            yield Column(asked, *self.suite[asked.named])


def load_suite(
    questions: Questions, test: EvaluationImages, threat: ThreatConfig, device: torch.device, trust: Trust
) -> dict[NamedAttack, LoadedAttack]:
    """The attacks, with the models that transfer attacks take their examples from, and images from elsewhere.

    Raises:
        UserError: a run that cannot be opened, or images that `load_given` refuses.
    """
    suite = {}
    threats = [replace(threat, eps=eps) for eps in questions.eps or [threat.eps]]
    for named in questions.attacks:
        if named.given is not None:
            suite[named] = LoadedAttack(*load_given(named.given, test, threats))
            continue
        if named.source is None:
            assert named.attack is not None, "an attack without a source"
            suite[named] = LoadedAttack(named.attack, None)
            continue
        run, experiment, checkpoint = open_source(named.source, trust)
        check_images(run, test.images)
        loaded = load_checkpoint(experiment, run, checkpoint, test.images, device)
        few = pick(test.images, torch.arange(2) % len(test.images), device)
        if (fault := gradient_fault(loaded.model.eval(), few.x)) is not None:
            raise UserError(f"transfer:{named.source}: {fault}; choose a run whose model has one")
        source = Source(
            str(run.weights(checkpoint).resolve()), loaded.weights, settings_digest(run.config()),
            users_code(loaded.model, experiment.model),
        )  # fmt: skip
        suite[named] = LoadedAttack(Transfer(loaded.model.eval()), source)
    return suite


def corruption_kinds(questions: Questions, source: Computed | OfficialFiles, test: ImageSet) -> list[tuple[str, int]]:
    """The corruptions that are asked for, with their severities.

    Raises:
        UserError: an unknown corruption, images for which there is none, or a missing file.
    """
    asked = ((source.names() if name == "all" else [name]) for name in questions.corruptions)
    names = dict.fromkeys(name for group in asked for name in group)
    kinds = [(name, severity) for name in names for severity in questions.severities]
    for name, severity in kinds:
        source.images(name, severity, test.subset(torch.arange(1)).pixels(), test.labels[:1])
    return kinds
