"""What an attack does to each class and each image: accuracies per class, confusions, the order of breaking."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from regmix.evaluation import CLEAN
from regmix.reports import words
from regmix.reports.load import Outcomes
from regmix.reports.statistics import Share, share
from regmix.reports.subject import Subject
from regmix.runs.thumbnails import breaking

PAIRS = 8
"""How many confused pairs are listed."""


@dataclass(frozen=True)
class ClassRow:
    """The accuracies of one class."""

    name: str
    images: int
    clean: Share
    robust: Share


@dataclass(frozen=True)
class Confusion:
    """How many images of a class the model takes for another class under the attack."""

    label: str
    taken_for: str
    images: int
    of: int
    """Images of the class."""


@dataclass(frozen=True)
class Broken:
    """When an image breaks: its position in the test split, its file (None: none of its own), its class, and what it is
    taken for (None: not known)."""

    index: int
    file: str | None
    label: str
    taken_for: str | None
    eps: float | None
    """The smallest evaluated radius at which an attack breaks it; None: none. `taken_for` is told of this attack, or of
    the one by which the run is judged if that breaks it at this radius, too."""
    attacks: int
    """How many of the evaluation's attacks break it, over all radii."""


@dataclass(frozen=True)
class Classes:
    """Per class and per image, what is left of the judged checkpoint under the attack by which the run is judged."""

    checkpoint: str
    attack: str
    eps: str
    names: list[str]
    """All classes, in the order of the matrix; `rows` has those with images."""
    rows: list[ClassRow]
    matrix: list[list[int]] | None
    """Images by class (row) and predicted class under the attack (column); None for an evaluation without
    predictions."""
    pairs: list[Confusion]
    """The confusions, most frequent first; an image that is misclassified without an attack counts as it is."""
    first: list[Broken]
    """Only images that are classified correctly without an attack."""
    last: list[Broken]
    wrong: int
    """How many images are misclassified without an attack."""
    never: int
    """How many images no attack breaks at any radius."""

    def confusion(self, label: str) -> Confusion | None:
        """What images of a class are taken for most often; None if for nothing else, or if it is not known."""
        if self.matrix is None:
            return None
        row = np.array(self.matrix[self.names.index(label)])
        images = int(row.sum())
        row[self.names.index(label)] = 0
        return Confusion(label, self.names[row.argmax()], int(row.max()), images) if row.any() else None

    def as_json(self) -> dict[str, object]:
        """Plain values; accuracies lie in [0, 1]."""
        return asdict(self)


def per_class(subject: Subject) -> Classes | None:
    """The table of a run; None if it has no outcomes under an attack."""
    checkpoint, attack = subject.checkpoint, subject.attack
    if checkpoint is None or attack is None or (column := subject.column_name(checkpoint)) is None:
        return None
    evaluation, outcomes = subject.run.evaluations[checkpoint], subject.run.outcomes.get(checkpoint)
    if outcomes is None or column not in outcomes.survives or CLEAN not in outcomes.survives:
        return None
    names = evaluation.subject.data.classes
    rows = [
        ClassRow(
            name,
            int(own.sum()),
            *(share(int(outcomes.survives[each][own].sum()), int(own.sum())) for each in (CLEAN, column)),
        )
        for number, name in enumerate(names)
        if (own := outcomes.label == number).any()
    ]
    matrix = _matrix(outcomes, column, len(names))
    when, few = (
        breaking(evaluation, outcomes, subject.run.distances.get(checkpoint)),
        subject.run.thumbnails.get(checkpoint),
    )
    files = {} if few is None else dict(zip(few.index.tolist(), few.files.tolist(), strict=True))

    radii = {name: known.eps for name, known in evaluation.columns.items() if name in outcomes.predicted}
    order = sorted(radii, key=lambda name: name != column)  # of several attacks, the judged one comes first

    def broken(row: int) -> Broken:
        radius = None if math.isinf(when.eps[row]) else float(when.eps[row])
        there = [name for name in order if radii[name] == radius and not outcomes.survives[name][row]]
        taken = [names[number] for name in there if (number := outcomes.predicted[name][row]) >= 0]
        return Broken(
            position := int(outcomes.index[row]), files.get(position) or None, names[outcomes.label[row]],
            taken[0] if taken else None, radius, int(when.attacks[row]),
        )  # fmt: skip

    return Classes(
        checkpoint, words.attack_text(attack), subject.eps_text, [*names], rows,
        None if matrix is None else matrix.tolist(), [] if matrix is None else _pairs(matrix, names),
        [broken(row) for row in when.first], [broken(row) for row in when.last],
        int((when.eps == 0).sum()), int(np.isinf(when.eps).sum()),
    )  # fmt: skip


def _matrix(outcomes: Outcomes, column: str, classes: int) -> NDArray[np.int64] | None:
    predicted = outcomes.predicted.get(column)
    if predicted is None or (predicted < 0).any():
        return None
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (outcomes.label, predicted), 1)
    return matrix


def _pairs(matrix: NDArray[np.int64], names: tuple[str, ...]) -> list[Confusion]:
    off = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-off, axis=None, kind="stable")
    found = [divmod(int(place), len(names)) for place in order[:PAIRS] if off.flat[place]]
    return [Confusion(names[a], names[b], int(off[a, b]), int(matrix[a].sum())) for a, b in found]
