"""A chunk of examples under one attack: how it is attacked, what it took, and how the journal remembers it."""

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import nn

from regmix.attacks import Attack, Eot, Given
from regmix.attacks.rows import waits_for_nothing
from regmix.evaluation.counting import Counter, counted
from regmix.evaluation.one_batch import Attacked, attacked
from regmix.evaluation.padded import padded
from regmix.evaluation.screening import NoCopy, screened
from regmix.runs.records import Cost
from regmix.threats import Threat
from regmix.types import Batch, Model

PAUSE = 0.5
"""Seconds between two looks at what other processes have done."""


class Journal(Protocol):
    """Remembers which rows of a chunk a stage has broken, so that a killed evaluation continues where it was."""

    def find(self, stage: str, chunk: Sequence[int]) -> list[int] | None: ...
    def add(self, stage: str, chunk: Sequence[int], broken: Sequence[int]) -> None: ...
    def claim(self, stage: str, chunk: Sequence[int]) -> bool:
        """Whether this process may look at a chunk now: it is done, or no other living process works on it."""
        ...

    def refresh(self) -> None:
        """Reads what other processes have done since."""
        ...


class Spent(NamedTuple):
    """What the attack on a chunk took, as whole numbers, which the journal and other processes keep exactly."""

    forward: int = 0
    backward: int = 0
    microseconds: int = 0

    @classmethod
    def find(cls, journal: Journal, name: str, rows: Sequence[int]) -> "Spent":
        """What the journal says that a stage took; nothing where an older version began the journal."""
        return cls(*journal.find(f"{name}, cost", rows) or ())

    def add(self, journal: Journal, name: str, rows: Sequence[int]) -> None:
        """Writes it into the journal."""
        journal.add(f"{name}, cost", rows, self)

    def cost(self, images: int) -> Cost:
        """The same for a record. images: how many it was spent on."""
        return Cost(images, self.forward, self.backward, self.microseconds / 1e6)


class Meter:
    """Measures what a piece of work takes, from now on: passes of the models that it counts, and time."""

    def __init__(self, model: Model) -> None:
        """model: one that averages several passes counts as often."""
        self._times = model.draws if isinstance(model, Eot) else 1
        self._began, self._counter = time.perf_counter(), Counter()

    def counted(self, model: Model) -> Model:
        """The model, whose passes are counted here."""
        return counted(model, self._counter)

    def spent(self) -> Spent:
        """What was spent since the beginning."""
        seconds = time.perf_counter() - self._began
        return Spent(self._times * self._counter.forward, self._times * self._counter.backward, round(1e6 * seconds))


class ChunkResult(NamedTuple):
    """What became of the rows of a chunk."""

    broken: list[int]
    not_attacked: list[int]
    taken_for: list[int]
    """The classes that the model predicts for the broken rows; -1 where that is unknown."""
    queries: list[int]
    """The query that broke each of the broken rows; empty where the attack does not count."""
    spent: Spent

    @classmethod
    def find(cls, journal: Journal, name: str, rows: Sequence[int]) -> "ChunkResult | None":
        """What the journal knows about a chunk; None if it is not done."""
        broken = journal.find(name, rows)
        if broken is None:
            return None
        # A journal that an older version began has no answers.
        answers = journal.find(f"{name}, taken for", rows) or [-1] * len(broken)
        idle, queries = (journal.find(f"{name}, {what}", rows) or [] for what in ("not attacked", "queries"))
        return cls(broken, idle, answers, queries, Spent.find(journal, name, rows))

    def add(self, journal: Journal, name: str, rows: Sequence[int]) -> None:
        """Writes it into the journal; the line that marks the chunk as done comes last."""
        if self.not_attacked:
            journal.add(f"{name}, not attacked", rows, self.not_attacked)
        if self.taken_for:
            journal.add(f"{name}, taken for", rows, self.taken_for)
        if self.queries:
            journal.add(f"{name}, queries", rows, self.queries)
        self.spent.add(journal, name, rows)
        journal.add(name, rows, self.broken)


def claimed(work: Sequence[tuple[str, Sequence[int]]], journal: Journal) -> Iterator[int]:
    """The numbers of all pieces of work, each when it is done by another process, or free for this one.

    work: stages with their rows.
    """
    waiting = [*range(len(work))]
    while waiting:
        left = []
        for number in waiting:
            if journal.claim(*work[number]):
                yield number
            else:
                left.append(number)
        waiting = left
        if waiting:
            time.sleep(PAUSE)
            journal.refresh()


class Chunks:
    """Attacks the chunks of one stage. A fast copy of the model is made at the first chunk that is attacked."""

    def __init__(
        self,
        model: Model,
        suited: Attack,
        threat: Threat,
        name: str,
        reference: Batch | None,
        note: Callable[[str], object],
    ) -> None:
        """reference: the images on which the copy is compared with the model; None means that there is no copy."""
        self.suited = suited
        self._model, self._threat, self._name, self._note = model, threat, name, note
        # Always the images of the first chunk, so that every process and every resumption builds the same copy.
        self._reference = reference if isinstance(model, nn.Module) else None
        self._screen: Model | None = None

    def attack(self, batch: Batch, rows: Sequence[int]) -> tuple[Attacked, Spent]:
        """Attacks a chunk; `rows` are the positions of its examples."""
        meter = Meter(self._model)
        if self._reference is not None:
            self._make_screen(self._reference)
            self._reference = None
        x, y = batch.x, batch.y
        asked = self._screen or self._model
        screen = asked if waits_for_nothing(x) else padded(asked)
        suited = self.suited.at(rows) if isinstance(self.suited, Given) else self.suited
        with repeatable(f"{self._name}/{rows[0]}", x.device):
            result = attacked(meter.counted(self._model), suited, x, y, self._threat, screen=meter.counted(screen))
        return result, meter.spent()

    def _make_screen(self, batch: Batch) -> None:
        assert isinstance(self._model, nn.Module)
        with repeatable(self._name, batch.x.device):
            try:
                self._screen = screened(self._model, batch.x, batch.y)
            except NoCopy as reason:
                if str(reason):
                    self._note(f"no fast copy of the model screens, as with --exact ({reason})")


@contextmanager
def repeatable(about: str, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on `about` alone inside the block, for models that are random."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(zlib.crc32(about.encode()))
        yield
