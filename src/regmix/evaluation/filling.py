"""A column of the table while it is filled, block of images by block."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.attacks import Ensemble, HopSkipJump, Square
from regmix.evaluation.chunks import Spent
from regmix.evaluation.evaluator import Evaluator
from regmix.evaluation.screening import SCREENED
from regmix.evaluation.table import not_attacked_note
from regmix.evaluation.task import Column
from regmix.runs import records
from regmix.runs.columns import query_curve
from regmix.runs.records import Cost, QueryCurve, Stage
from regmix.types import Images, Labels

Keep = Callable[[Sequence[int], Images, Images], None]


class Filling:
    """What has become of the test images under one attack so far.

    Attributes:
        survives: bool [N]; False where the image has not been attacked yet.
        predicted: int [N], the class under the attack; -1 where it is not known.
        remarks: what is to be said about the column.
    """

    def __init__(self, column: Column, images: int) -> None:
        self.column = column
        self.survives = torch.zeros(images, dtype=torch.bool)
        self.predicted = torch.full((images,), -1)
        self.remarks: dict[str, None] = {}  # a dict, so that what is true of several stages is said once
        self._untried = torch.zeros(images, dtype=torch.bool)
        self._correct = torch.zeros(images, dtype=torch.bool)
        self._queries = torch.full((images,), -1)
        self._attacked = 0
        self._left = {stage: 0 for stage, _ in column.stages}
        self._spent = dict.fromkeys(self._left, Spent())

    def attack(
        self,
        evaluator: Evaluator,
        correct: Bool[Tensor, "examples"],
        clean: Labels,
        exact: bool,
        keep: Keep | None,
        on_stage: Callable[[int, int], None],
    ) -> None:
        """Attacks these images, which are classified correctly without an attack.

        Args:
            clean: what the model predicts without an attack, [N]; -1 where that is not known yet.
            exact: no fast copy of the model screens.
            on_stage: called before a stage with its number and how many images are left for it.
        """
        alive, untried = correct, correct
        self._attacked += int(correct.sum())
        self._correct |= correct
        fresh = (self.predicted < 0) & (clean >= 0)
        self.predicted = torch.where(fresh, clean, self.predicted)
        for number, (stage, attack) in enumerate(self.column.stages):
            on_stage(number, int(alive.sum()))
            before = alive
            alive, idle, taken_for, queries, spent = evaluator.survivors(
                attack, self.column.asked.threat, alive, self.column.in_journal(stage),
                screen=not exact and isinstance(attack, SCREENED), keep=keep, note=self.remarks.setdefault,
            )  # fmt: skip
            self._queries = torch.maximum(self._queries, queries)
            untried = untried & idle & alive
            self.predicted = torch.where(before & ~alive, taken_for, self.predicted)
            self._left[stage] += int(alive.sum())
            self._spent[stage] = Spent(*(sum(pair) for pair in zip(self._spent[stage], spent, strict=True)))
        self.survives |= alive
        self._untried |= untried

    def keep(self, rows: Tensor) -> None:
        """Forgets all images but those at these positions."""
        self.survives, self.predicted, self._untried, self._correct, self._queries = (
            values[rows] for values in (self.survives, self.predicted, self._untried, self._correct, self._queries)
        )

    def record(self, counted: records.Column) -> records.Column:
        """The record of the column: `counted`, with what only the attack knows."""
        examples, idle = len(self.survives), int(self._untried.sum())
        record = replace(counted, source=self.column.source, cost=self._cost(), queries=self._query_curve())
        if isinstance(self.column.attack, Ensemble):
            record = replace(record, stages=self._stages(examples), note=self.column.attack.note)
        why = ("there is no adversarial image of them",) if self.column.asked.named.given is not None else ()
        if text := not_attacked_note(idle, examples, *why):
            record = replace(record, not_attacked=idle, note=f"{text}. {record.note}".strip())
        return record

    def _cost(self) -> Cost:
        return Spent(*(sum(values) for values in zip(*self._spent.values(), strict=True))).cost(self._attacked)

    def _query_curve(self) -> QueryCurve | None:
        """How many images each number of queries breaks; None for an attack that does not count them."""
        attack, broken = self.column.attack, self._correct & ~self.survives
        if not isinstance(attack, Square | HopSkipJump) or bool((self._queries[broken] < 0).any()):
            return None
        return query_curve(self._queries[broken].tolist(), self._attacked, attack.queries)

    def _stages(self, examples: int) -> list[Stage]:
        seconds, stages = 0.0, []
        for name, left in self._left.items():
            seconds += self._spent[name].microseconds / 1e6
            stages.append(Stage(name, left / examples, seconds))
        return stages
