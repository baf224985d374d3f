"""The table [examples x attacks] of an evaluation, and the reductions that make numbers of it."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def wilson(correct: int, examples: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a proportion, by default at 95 %: (low, high) in [0, 1]."""
    assert examples > 0
    p, z2 = correct / examples, z * z / examples
    centre = (p + z2 / 2) / (1 + z2)
    half = z * math.sqrt(p * (1 - p) / examples + z2 / (4 * examples)) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Outcomes:
    """For every example (row) and attack (column): is it still classified correctly?

    An example that is misclassified without any attack counts as broken in every column.
    """

    names: tuple[str, ...]
    labels: Int[Tensor, "examples"]
    robust: Bool[Tensor, "examples attacks"]
    untried: Bool[Tensor, "examples attacks"] | None = None
    """Which examples survive because the attack could not take them on; None where that is not known."""

    def __len__(self) -> int:
        return len(self.labels)

    def column(self, name: str) -> Bool[Tensor, "examples"]:
        """Which examples survive the attack of this name."""
        return self.robust[:, self.names.index(name)]

    def accuracy(self, name: str) -> float:
        """The share of examples that survive the attack of this name."""
        return float(self.column(name).double().mean())

    def not_attacked(self, name: str) -> int:
        """How many examples survive the attack of this name because it could not take them on."""
        return 0 if self.untried is None else int(self.untried[:, self.names.index(name)].sum())

    def worst_case(self, names: Sequence[str]) -> Bool[Tensor, "examples"]:
        """Which examples survive every one of these attacks."""
        return torch.stack([self.column(name) for name in names]).all(0)

    def join(self, other: "Outcomes") -> "Outcomes":
        """This table and the other's columns that it does not have; both must be of the same examples."""
        assert torch.equal(self.labels, other.labels), "tables of different examples"
        new = [name for name in other.names if name not in self.names]
        columns = [self.robust, *(other.column(name)[:, None] for name in new)]
        return Outcomes((*self.names, *new), self.labels, torch.cat(columns, 1))

    def to_csv(self, positions: Int[Tensor, "examples"]) -> str:
        """One row per example: its position in the test split (`index`), its label, and 1 or 0 per attack."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", "label", *self.names])
        rows = zip(positions.tolist(), self.labels.tolist(), self.robust.int().tolist(), strict=True)
        writer.writerows([index, label, *row] for index, label, row in rows)
        return text.getvalue()
