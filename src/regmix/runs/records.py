"""What the files of a run directory hold, as typed values: they are written and read through these."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from regmix.runtime.files import read_json, write_atomically
from regmix.types import Fingerprint, OneAnswer, Sample, UserError

T = TypeVar("T")
Checkpoint = Literal["best", "last", "averaged"]


@dataclass(frozen=True)
class Alarm:
    """What the guard against catastrophic overfitting found, and what it was told to do about it."""

    epoch: int
    reason: str
    action: Literal["continue", "stop", "rollback"]


@dataclass(frozen=True)
class Result:
    """result.json, the summary of the training; everything may be missing as long as a run is not finished."""

    status: str | None = None
    epochs: int | None = None
    train_seconds: float | None = None
    best_epoch: int | None = None
    best_pgd: float | None = None
    peak_memory: int | None = None
    alarms: list[Alarm] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What is wrong with the weights that the training has kept."""
    classes: list[str] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    """[C, H, W] of the images."""
    weights: str = ""
    """Of a model from elsewhere: which weights were loaded."""
    evaluations: dict[str, Any] = field(default_factory=dict)
    """What regmix 0.1 wrote here does not say which weights it is about; it is not shown as a result."""


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
class Data:
    """data.json: the images that a run learns from and is validated on."""

    train: Fingerprint
    validation: Fingerprint
    notes: list[str] = field(default_factory=list)
    """What the source of the images has left out or changed."""


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
class Source:
    """The weights from which the examples of a transfer attack come."""

    path: str
    weights: str
    """Digest of the file."""


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
    not_attacked: int = 0
    """How many of the survivors the attack could not take on."""
    source: Source | None = None
    """Of a transfer attack."""
    exact: bool = False
    """No bfloat16 copy of the model took part."""
    made: str = ""
    """Date and time, UTC."""
    regmix: str = ""
    """The version that attacked."""


@dataclass(frozen=True)
class Masking:
    """Whether the model hides its gradients, and what speaks for it."""

    verdict: Literal["masked", "no sign of masking", "undecided"]
    signs: list[str]
    probe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Corruptions:
    """Accuracy by the name of a corruption and its severity; `source` is a folder, or: computed."""

    source: str
    accuracy: dict[str, dict[int, float]]


@dataclass(frozen=True)
class Subject:
    """What an evaluation is about: its numbers hold for these weights, this code and these images alone."""

    checkpoint: Checkpoint
    weights: str
    """Digest of the file of weights."""
    settings: str
    """Digest of the model, data and threat of config.json."""
    data: Fingerprint
    """The whole test split."""
    sample: Sample
    """Which of its images were used."""
    draws: int = 1
    """Passes whose logits were averaged."""
    code: dict[str, str] = field(default_factory=dict)
    """Digests of the user's files that the model is written in, by their paths."""

    @property
    def key(self) -> str:
        """A name that differs wherever two evaluations cannot be put together."""
        facts = {**asdict(self), "code": sorted(self.code.values())}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json: all that attacks have found about one subject, by the column's name in outcomes.csv."""

    subject: Subject
    columns: dict[str, Column]
    preflight: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the source of the images has left out or changed."""
    one_answer: OneAnswer | None = None
    """The class that the model answers for nearly every image."""
    masking: Masking | None = None
    corruptions: list[Corruptions] = field(default_factory=list)
    seconds: float = 0.0
    """Of all evaluations together."""
    made: str = ""
    """Date and time of the last one, UTC."""

    @property
    def examples(self) -> int:
        """The number of images."""
        return self.subject.sample.count

    def merged(self, newer: "Evaluation") -> "Evaluation":
        """This and what a newer evaluation of the same subject has found; of the same columns the newer ones."""
        assert newer.subject.key == self.subject.key, "evaluations of different subjects"
        corruptions = {one.source: one for one in self.corruptions}
        for one in newer.corruptions:
            known = corruptions[one.source].accuracy if one.source in corruptions else {}
            names = [*known, *(name for name in one.accuracy if name not in known)]
            accuracy = {name: {**known.get(name, {}), **one.accuracy.get(name, {})} for name in names}
            corruptions[one.source] = Corruptions(one.source, accuracy)
        return replace(
            newer,
            columns={**self.columns, **newer.columns},
            masking=newer.masking or self.masking,
            corruptions=[*corruptions.values()],
            seconds=self.seconds + newer.seconds,
        )


def write_record(path: Path, record: Any) -> None:
    """Writes a record as JSON, atomically."""
    text = json.dumps(asdict(record), indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_record(path: Path, kind: type[T]) -> T:
    """Reads a record.

    Raises:
        UserError: a file that cannot be read or is damaged; it names the place.
    """
    return typed(path, kind, read_json(path))


def typed(path: Path, kind: type[T], value: Any) -> T:
    """The value as this type. Raises UserError, which names the file, if it is of another."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}") from None


def same_eps(a: float, b: float) -> bool:
    """Whether two radii are the same but for the digits that their files keep."""
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9)
