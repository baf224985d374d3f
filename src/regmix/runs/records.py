"""What the files of a run directory hold, as typed values: the files are written and read through these."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from pydantic import JsonValue

from regmix.runs.columns import Column as Column
from regmix.runs.columns import Cost as Cost
from regmix.runs.columns import QueryCurve as QueryCurve
from regmix.runs.columns import Rounded as Rounded
from regmix.runs.columns import Source as Source
from regmix.runs.columns import Stage as Stage
from regmix.runs.distances import Curve
from regmix.runs.environment import Environment as Environment
from regmix.types import Fingerprint, OneAnswer, Sample

Checkpoint = Literal["best", "last", "averaged"]
Images = tuple[Sample, Fingerprint, int]
"""A set of test images: which of a split, the split, and the passes whose logits were averaged."""


@dataclass(frozen=True)
class Alarm:
    """What the guard against catastrophic overfitting found, and what it did about it."""

    epoch: int
    reason: str
    action: Literal["continue", "stop", "rollback"]


@dataclass(frozen=True)
class Result:
    """result.json, the summary of the training; values are missing until a run is finished."""

    status: str | None = None
    """finished, or stopped: by the guard, or because too many steps were not finite. None: not finished yet."""
    epochs: int | None = None
    train_seconds: float | None = None
    best_epoch: int | None = None
    best_pgd: float | None = None
    """Accuracy of the best weights on the validation images under PGD-10, in [0, 1]."""
    best_clean: float | None = None
    """The same without an attack; after standard training the best weights are chosen by it."""
    best_averaged: bool | None = None
    """Whether the best weights are the moving average; None where an older version did not record it."""
    peak_memory: int | None = None
    """Bytes on the GPU; None on a CPU."""
    alarms: list[Alarm] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What is wrong with the saved weights."""
    lengthened: list[int] = field(default_factory=list)
    """Epochs that were planned before the run was lengthened; from then on, rate and ramp are the longer training's."""
    classes: list[str] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    """[C, H, W] of the images."""
    weights: str = ""
    """Of a model from elsewhere: which weights were loaded."""
    evaluations: dict[str, JsonValue] = field(default_factory=dict)
    """Written by regmix 0.1. It does not say which weights it is about, so it is not shown as a result."""

    @property
    def is_complete(self) -> bool:
        """Whether no more epochs will be trained: all are, or the training was stopped early."""
        return self.status in ("finished", "stopped")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of metrics.jsonl; accuracies lie in [0, 1], terms are weighted, per_example is not."""

    epoch: int
    epochs: int
    """Planned epochs."""
    step: int | None = None
    """Steps since the beginning."""
    lr: float
    loss: float
    terms: dict[str, float]
    """The parts of the loss, whose sum it is."""
    per_example: dict[str, float] = field(default_factory=dict)
    """Weights of the terms for a single image, where they depend on the number of classes."""
    stats: dict[str, float] = field(default_factory=dict)
    """What else the method reports, such as `ratio`: the accuracy after the attack divided by that before it."""
    train_robust: float | None = None
    """Accuracy on the training images under the training's own attack, in the course of the epoch."""
    validation: dict[str, float] | None = None
    """None for an epoch without a validation."""
    lost_steps: list[int] = field(default_factory=list)
    """Steps of the epoch from which nothing was learned, because their numbers were not finite."""
    images_per_second: float | None = None
    waited: float | None = None
    """The share of the time in which a step had no batch yet."""
    seconds: float | None = None
    """Since the beginning."""

    @property
    def pgd(self) -> float | None:
        """The PGD accuracy on the validation images; None for an epoch without a validation."""
        return (self.validation or {}).get("pgd")


def validated(rows: Iterable[Epoch], by: Literal["pgd", "clean"] = "pgd") -> list[tuple[int, float]]:
    """The epochs with a validation, and their PGD or clean accuracy."""
    return [(row.epoch, row.validation[by]) for row in rows if row.validation is not None and by in row.validation]


def went_back(rows: Iterable[Epoch], alarms: Iterable[Alarm]) -> list[int]:
    """For each time that the guard rolled the run back, the epoch after which it continued.

    It is that of the last validation before the alarm: with an alarm, it would have been undone itself.
    """
    healthy = [epoch for epoch, _ in validated(rows)]
    undone = [alarm.epoch for alarm in alarms if alarm.action == "rollback"]
    return [max((epoch for epoch in healthy if epoch < alarm), default=0) for alarm in undone]


@dataclass(frozen=True)
class Data:
    """data.json: the images that a run learns from and is validated on."""

    train: Fingerprint
    validation: Fingerprint
    notes: list[str] = field(default_factory=list)
    """What was left out or changed when the images were read."""
    held_out: str = ""
    """The folder of the validation images, such as val; empty where they are taken from the training images."""


@dataclass(frozen=True)
class Paired:
    """The accuracy of one column minus that of another on the same examples, with its 95 % interval."""

    difference: float
    low: float
    high: float
    gained: int
    """Examples that only the first column gets right."""
    lost: int
    """Examples that only the second column gets right."""

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Probe:
    """What a probe for gradient masking measures on correctly classified images; shares and accuracies in [0, 1]."""

    examples: int
    zero_gradients: float
    """The share of images without a gradient."""
    rising: float
    """The share of images whose cross-entropy is larger after PGD-20 than at its start."""
    white_box: float
    """Accuracy under APGD-CE and APGD-DLR with 50 steps each."""
    black_box: float
    """Accuracy under Square with 300 queries."""
    only_black_box: float
    """The share of images that Square breaks and APGD does not."""
    far: float
    """The share of images that APGD does not break at a radius at which every image can be turned into grey, although
    grey or a mixture with an image of another class breaks them there."""
    averaged: Paired | None = None
    """Of a random model: `white_box` minus the accuracy of the mean of 10 passes under the same attacks."""


Verdict = Literal["masked", "no sign of masking", "undecided"]


@dataclass(frozen=True)
class Masking:
    """Whether the model hides its gradients, and the evidence: a sentence for each sign."""

    verdict: Verdict
    signs: list[str]
    probe: Probe | None = None
    images: str = ""
    """The images of the evaluation that gave this verdict, where it is shown with another one."""


@dataclass(frozen=True)
class Corruptions:
    """Accuracy by the name of a corruption and its severity; `source` is a folder, or: computed."""

    source: str
    accuracy: dict[str, dict[int, float]]
    cost: Cost | None = None
    """What they took; None from an older version."""


@dataclass(frozen=True)
class Subject:
    """What an evaluation is about: its numbers hold for these weights, this code and these images only."""

    checkpoint: Checkpoint
    weights: str
    """Digest of the file of weights."""
    settings: str
    """Digest of the model's settings and the norm in config.json; images and radii are told elsewhere."""
    data: Fingerprint
    """The whole test split."""
    sample: Sample
    """Which of its images were used."""
    draws: int = 1
    """Passes whose logits were averaged."""
    code: dict[str, str] = field(default_factory=dict)
    """Digests of the user's files that define the model, by path."""

    @property
    def passes(self) -> str:
        """Words to add to a number or an image count if it is about the mean of several passes; else empty."""
        return f", mean of {self.draws} passes" if self.draws > 1 else ""

    @property
    def key(self) -> str:
        """A name that differs wherever two evaluations cannot be merged."""
        facts = {**asdict(self), "code": sorted(self.code.values())}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json: the results about one subject, by the name of the column in outcomes.csv."""

    subject: Subject
    columns: dict[str, Column]
    preflight: list[str] = field(default_factory=list)
    """What the checks before the attacks have found."""
    notes: list[str] = field(default_factory=list)
    """What was left out or changed when the images were read."""
    elsewhere: str = ""
    """Where the images are, if they are not the test split that the run's settings name; empty: they are."""
    one_answer: OneAnswer | None = None
    """The class that the model answers for nearly every image."""
    masking: Masking | None = None
    corruptions: list[Corruptions] = field(default_factory=list)
    curve: Curve | None = None
    """Accuracy against eps, from smallest perturbations."""
    seconds: float = 0.0
    """Of all evaluations together, without what interrupted ones had done before they were continued."""
    made: str = ""
    """Date and time of the last one, UTC."""

    @property
    def examples(self) -> int:
        """The number of images."""
        return self.subject.sample.count

    @property
    def images(self) -> Images:
        """What two evaluations must have in common to be compared: the images, how they were drawn, and the passes."""
        return self.subject.sample, self.subject.data, self.subject.draws

    def sample_text(self, images: str = "test images") -> str:
        """The images in words; `images` names those of the run's own test split."""
        return self.subject.sample.text(f"images of {self.elsewhere}" if self.elsewhere else images)

    @property
    def about_images(self) -> list[str]:
        """What to know about the images: what was changed as they were read, and the rules that chose them."""
        rules = dict.fromkeys(column.rule for column in self.columns.values())
        return [*self.notes, *(rule for rule in rules if rule)]

    @property
    def is_probed(self) -> bool:
        """Whether masking was probed; a model that classifies no image correctly has nothing to probe."""
        return self.masking is not None or self.columns["clean"].correct == 0

    def merged(self, newer: "Evaluation") -> "Evaluation":
        """This evaluation and a newer one of the same subject; columns of the same name are the newer ones."""
        assert newer.subject.key == self.subject.key, "evaluations of different subjects"
        corruptions = {each.source: each for each in self.corruptions}
        for each in newer.corruptions:
            before = corruptions.get(each.source, Corruptions(each.source, {}))
            known = before.accuracy
            names = [*known, *(name for name in each.accuracy if name not in known)]
            accuracy = {name: {**known.get(name, {}), **each.accuracy.get(name, {})} for name in names}
            # If the newer record covers all earlier kinds, its cost includes theirs: they are not added twice.
            again = all(known[name].keys() <= each.accuracy.get(name, {}).keys() for name in known)
            costs = [cost for cost in (None if again else before.cost, each.cost) if cost is not None]
            corruptions[each.source] = Corruptions(each.source, accuracy, sum(costs[1:], costs[0]) if costs else None)
        columns = {**self.columns, **newer.columns}
        of_clean = [each.columns["clean"] for each in (newer, self) if "clean" in each.columns]
        if len({column.correct for column in of_clean}) == 1:
            # Where a rule chose the number of images the interval is wider, and stays so for who adds to them.
            columns["clean"] = max(of_clean, key=lambda column: column.high - column.low)
        # A copy of the run's own images is no other set, and what was said about it does not hold for them.
        noted = self if newer.elsewhere and not self.elsewhere else newer
        return replace(
            newer, columns=columns, notes=noted.notes,
            elsewhere=self.elsewhere and newer.elsewhere,
            masking=newer.masking or self.masking,
            curve=newer.curve or self.curve, corruptions=[*corruptions.values()], seconds=self.seconds + newer.seconds,
        )  # fmt: skip
