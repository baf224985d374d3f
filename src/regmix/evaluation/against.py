"""Two runs on the same images: both are evaluated, and compared image by image."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    begun = [[*each.begin(chosen, device, progress)] for each in (first, second)]
    evaluations, questions, test = [*begun[0], *begun[1]], first.questions, first.test
    headings = {0: first.path, len(begun[0]): second.path}

    def name_run(number: int) -> None:
        if number in headings:
            progress.note(f"{headings[number]}:")

    if questions.within is None:
        for number, evaluation in enumerate(evaluations):
            name_run(number)
            evaluation.fill(torch.arange(len(test.images)), last=True)
    else:
        seed = questions.sample_seed
        progress.note(fill_until_narrow(evaluations, test, questions.within, seed, paired=True, on_settle=name_run))
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
