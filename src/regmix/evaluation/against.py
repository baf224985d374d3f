"""Two runs on the same images: both are evaluated, and compared image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from regmix.evaluation.assessment import Assessment, finish
from regmix.evaluation.outcomes import paired
from regmix.evaluation.sequential import Rule
from regmix.evaluation.task import Progress
from regmix.evaluation.until_narrow import fill_until_narrow, halves
from regmix.runs import Checkpoint
from regmix.runs.records import Paired
from regmix.runtime.devices import Device
from regmix.types import UserError


@dataclass(frozen=True)
class Difference:
    """The accuracy of the first run minus that of the second, on the same images under the same attack."""

    checkpoint: Checkpoint
    column: str
    paired: Paired

    def text(self) -> str:
        """The difference in points with its interval."""
        low, middle, high = (100 * value for value in (self.paired.low, self.paired.difference, self.paired.high))
        return (
            f"{self.checkpoint:<9} {self.column:<18} difference {middle:+.1f} points  [{low:+.1f}, {high:+.1f}]  "
            f"({self.paired.gained} images only the first has right, {self.paired.lost} only the second)"
        )


class _Headed:
    """Shows the evaluation of one of two runs: under a heading wherever the latest lines were about the other one."""

    def __init__(self, progress: Progress, path: Path, latest: list[Path]) -> None:
        """latest: of the runs; the last one is that of the latest line."""
        self._progress, self._path, self._latest = progress, path, latest
        self.stage, self.work = progress.stage, progress.work

    def _headed(self) -> Progress:
        if self._latest[-1:] != [self._path]:
            self._progress.note(f"{self._path}:")
            self._latest.append(self._path)
        return self._progress

    def note(self, text: str) -> None:
        self._headed().note(text)

    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float, cost: str) -> None:
        self._headed().column(checkpoint, name, accuracy, low, high, cost)

    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None:
        self._headed().corruption(checkpoint, name, accuracies)


def evaluate_both(
    first: Assessment, second: Assessment, checkpoints: Sequence[Checkpoint], device: Device, progress: Progress
) -> list[Difference]:
    """Evaluates two runs on the same images; see `Assessment.run`. Returns the differences, also of the worst case.

    With `within` it evaluates as many images as it takes until every difference is narrow enough; see `sequential`.

    Args:
        checkpoints: which weights; empty means all that both runs have.

    Raises:
        UserError: other test images, other attacks or radii, no checkpoint that both have, or what `Assessment.run`
            raises.
    """
    first.check_comparable(second)
    common = [name for name in first.checkpoints() if name in second.checkpoints()]
    chosen = checkpoints or common
    if not chosen:
        raise UserError(f"{first.path} and {second.path} have no checkpoint in common; give --checkpoint")
    latest: list[Path] = []
    evaluations = [
        evaluation
        for each in (first, second)
        for evaluation in each.begin(chosen, device, _Headed(progress, each.path, latest))
    ]
    questions, test = first.questions, first.test
    if questions.within is None:
        for evaluation in evaluations:
            evaluation.fill(torch.arange(len(test.images)), last=True)
    else:
        progress.note(fill_until_narrow(evaluations, test, questions.within, questions.sample_seed, paired=True))
    found = []
    for mine, theirs in halves(evaluations):
        table, other = mine.survives(), theirs.survives()
        for column in table:
            difference = paired(table[column].numpy(), other[column].numpy())
            if questions.within is not None:
                rule = Rule(len(test.images), len(test.images.classes), questions.within)
                low, high = rule.difference_interval(difference.gained, difference.lost, len(table[column]))
                difference = Paired(difference.difference, low, high, difference.gained, difference.lost)
            found.append(Difference(mine.subject.checkpoint, column, difference))
    finish(evaluations)
    return found
