"""What a finding is, and what the rules that make findings look at."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from regmix.evaluation import CLEAN, Paired, paired
from regmix.methods import METHODS
from regmix.methods.base import Method
from regmix.methods.mutual import Mutual
from regmix.reports.load import Column, Epoch, Evaluation, LoadedRun
from regmix.reports.page import judged
from regmix.reports.statistics import Share, same_examples, share
from regmix.reports.subject import Subject
from regmix.threats import format_eps

RADIUS = "ε"
"""The name of a number that is a radius; it is written as 8/255 where it is a whole number of grey levels."""


@dataclass(frozen=True)
class Number:
    """One piece of evidence: a number, and its 95 % interval where chance plays a part."""

    what: str
    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, what: str, found: Share | Column) -> "Number":
        """An accuracy with its interval."""
        return cls(what, found.accuracy, found.low, found.high)

    @property
    def text(self) -> str:
        """The number and its interval, with three digits; a whole number with all of them."""
        if self.what == RADIUS:
            return format_eps(self.value)
        interval = "" if self.low is None or self.high is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:{'.0f' if self.value == int(self.value) else '.3g'}}{interval}"


@dataclass(frozen=True)
class Finding:
    """What is wrong with a run, why this is known, and what to try."""

    name: str
    what: str
    evidence: list[Number]
    causes: list[str]
    """Every cause that fits the evidence, the likeliest first."""
    change: str
    """A command to try."""
    promise: str
    """The number that the change should improve."""
    brief: str = ""
    """What stands for the finding on the first screen of a report; empty: its name."""


def difference(first: Share, second: Share) -> tuple[float, float, float]:
    """(first - second, low, high): Newcombe's 95 % interval (Statistics in Medicine 17, 1998) from Wilson's.

    It is for independent samples. Two accuracies on the same images vary together, so there it is too wide, which is
    the safe side.
    """
    d = first.accuracy - second.accuracy
    low = d - math.hypot(first.accuracy - first.low, second.high - second.accuracy)
    return d, low, d + math.hypot(first.high - first.accuracy, second.accuracy - second.low)


class Rates(NamedTuple):
    """Peak learning rates of an optimizer: suspicious ones lie below `low` or above `high`."""

    low: float
    usual: float
    high: float
    text: str


SGD = Rates(0.02, 0.1, 0.3, "0.05 to 0.2 with SGD")
"""With momentum 0.9; the range of the published trainings of these methods."""
ADAMW = Rates(1e-5, 1e-3, 1e-2, "0.0001 to 0.003 with AdamW")
"""The range in which networks are trained and fine-tuned."""


@dataclass(frozen=True)
class Case:
    """A run, the other runs that were given with it, and what was probed."""

    subject: Subject
    peers: Sequence[Subject] = ()
    plain: Share | None = None
    """Validation accuracy, without an attack, of a model that was trained on clean images with the run's settings."""
    proposed: int = 0
    """How many trainings other findings propose: the next one gets a folder of its own."""

    @property
    def run(self) -> LoadedRun:
        """The run directory."""
        return self.subject.run

    @cached_property
    def method(self) -> Method | None:
        """The training method; None for a model from elsewhere, or settings that this version cannot read."""
        settings = self.run.part("method")
        kind = METHODS.get(str(settings.get("name")))
        if kind is None or self.run.source is not None:
            return None
        try:
            return TypeAdapter(kind).validate_python(settings)
        except ValidationError:
            return None

    @property
    def rates(self) -> Rates:
        """The usual peak learning rates of the run's optimizer."""
        return ADAMW if self.run.config.get("optimizer") == "adamw" else SGD

    @property
    def is_adversarial(self) -> bool:
        """Whether the training attacks its images."""
        return self.method is not None and self.method.adversarial

    @property
    def mutual(self) -> Mutual | None:
        """The weights of RegMix's terms, if the method has one above 0."""
        weights = Mutual.of(self.method)
        return weights if weights is not None and any(weights.per_example(self.classes)) else None

    @property
    def classes(self) -> int:
        """The number of classes."""
        return max(2, len(self.run.result.classes))

    @property
    def eps(self) -> float:
        """The training's radius; 0 without one."""
        value = self.run.part("threat").get("eps")
        return float(value) if isinstance(value, int | float) else 0.0

    @property
    def norm(self) -> str:
        """The name of the threat model."""
        return self.run.norm

    def setting(self, name: str) -> float:
        """A number in the settings; 0 if there is none."""
        value = self.run.config.get(name)
        return float(value) if isinstance(value, int | float) else 0.0

    @cached_property
    def validated(self) -> list[Epoch]:
        """The epochs with a validation."""
        return self.run.validated

    def validation(self, row: Epoch, name: str) -> Share | None:
        """An accuracy on the validation images after an epoch."""
        images = self.run.validation_images or int(self.setting("validation"))  # 0.1 did not record the first
        value = (row.validation or {}).get(name)
        return share(round(value * images), images) if images and value is not None else None

    def training(self, row: Epoch) -> Share | None:
        """The accuracy on the training images, under the training's attack, in the course of an epoch.

        None if images were mixed: an image of two classes is never fully predicted.
        """
        mixed = self.run.part("mix").get("name", "none") != "none"
        if row.train_robust is None or not self.run.train_images or mixed:
            return None
        return share(round(row.train_robust * self.run.train_images), self.run.train_images)

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of the checkpoint by which the run is judged."""
        return self.run.evaluations.get(self.subject.checkpoint or "")

    @property
    def clean(self) -> Column | None:
        """Its accuracy without an attack."""
        found = self.subject.column(self.subject.checkpoint, CLEAN)
        return found[1] if found else None

    @property
    def robust(self) -> Column | None:
        """Its accuracy under the strongest attack at the radius by which the run is judged."""
        found = self.subject.column(self.subject.checkpoint, self.subject.attack)
        return found[1] if found else None

    @property
    def answers_one_class(self) -> bool:
        """Whether a shown checkpoint predicts one class for nearly every test image."""
        return any(evaluation.one_answer is not None for evaluation in self.run.evaluations.values())

    def against(self, peer: Subject, column: str, checkpoint: str | None = None, comparisons: int = 1) -> Paired | None:
        """This run's accuracy minus a peer's in a column, on the same images; None if there is no such thing.

        A column under attack is another one in another norm, though it has the same name.

        checkpoint: of the peer; None means the one by which it is judged.
        comparisons: of how many this is one, see `paired`.
        """
        here, there = self.subject.checkpoint or "", checkpoint or peer.checkpoint or ""
        if not same_examples(self.run, here, peer.run, there):
            return None
        mine, theirs = self.run.outcomes[here], peer.run.outcomes[there]
        if column not in mine.survives or column not in theirs.survives:
            return None
        if column != CLEAN and self.run.norm != peer.run.norm:
            return None
        return paired(mine.survives[column], theirs.survives[column], comparisons)

    def best_minus_last(self) -> Paired | None:
        """The robust test accuracy of the best weights minus that of the last, on the same images."""
        best, last = judged(self.subject, "best"), judged(self.subject, "last")
        if best is None or last is None:
            return None
        return paired(best[1], last[1])

    def train(self, *flags: str) -> str:
        """The command that trains anew with some settings changed, into a folder that does not exist yet."""
        path = self.run.path if self.run.path.name not in ("", "..") else self.run.path.resolve()
        free = (n for n in range(2, 10**6) if not path.with_name(f"{path.name}-{n}").exists())
        number = next(islice(free, self.proposed, None))
        return shlex.join(
            ["regmix", "train", "--from", str(path), *flags, *self.code, "--out", f"{path}-{number}"]
        )  # fmt: skip

    def evaluate(self, *flags: str) -> str:
        """The command that evaluates the run with some flags."""
        return shlex.join(["regmix", "evaluate", str(self.run.path), *flags, *self.code])

    def other_method(self, name: str, *flags: str) -> str:
        """The command that trains anew with another method."""
        gated = self.run.part("averaging").get("name") == "gated_ema"
        return self.train("--method", name, *flags, *(["--averaging", "ema"] if gated else []))

    def resume(self) -> str:
        """The command that continues the training."""
        return shlex.join(["regmix", "train", "--resume", str(self.run.path), *self.code])

    @property
    def code(self) -> list[str]:
        """The flags that allow a model and data of the user's own to run."""
        return self.run.code
