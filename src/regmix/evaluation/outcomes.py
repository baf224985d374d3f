"""The table [examples x attacks] of an evaluation, and the accuracies, intervals and tests computed from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from regmix.runs.records import Paired
from regmix.types import require


def wilson(correct: int, examples: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a proportion, by default at 95 %: (low, high) in [0, 1]."""
    assert examples > 0
    p, z2 = correct / examples, z * z / examples
    centre = (p + z2 / 2) / (1 + z2)
    half = z * math.sqrt(p * (1 - p) / examples + z2 / (4 * examples)) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_], comparisons: int = 1) -> Paired:
    """Compares two columns [N] of the same examples.

    With b examples that only the first gets right and c that only the second does, the difference is (b - c) / N. The
    interval is the one of Agresti and Min (Statistics in Medicine 24, 2005): Wald's after half an example is added to
    each of the four cells, (b - c) / m +- z sqrt(b + c + 1 - (b - c)^2 / m) / m with m = N + 2, where z is 1.96 for
    one comparison and the normal quantile at 1 - 0.025 / comparisons for one of several (Bonferroni).
    """
    assert first.shape == second.shape, "two columns of different examples"
    b, c, m = int((first & ~second).sum()), int((second & ~first).sum()), len(first) + 2
    centre = (b - c) / m
    half = NormalDist().inv_cdf(1 - 0.025 / comparisons) * math.sqrt(b + c + 1 - (b - c) ** 2 / m) / m
    return Paired((b - c) / len(first), max(-1.0, centre - half), min(1.0, centre + half), b, c)


@dataclass(frozen=True)
class Outcomes:
    """For every example (row) and attack (column): is it still classified correctly?

    An example that is misclassified without any attack counts as broken in every column.
    """

    names: tuple[str, ...]
    labels: Int[Tensor, "examples"]
    robust: Bool[Tensor, "examples attacks"]
    untried: Bool[Tensor, "examples attacks"] | None = None
    """Which examples survive because the attack could not start from them; None where that is not known."""
    predicted: Int[Tensor, "examples"] | None = None
    """The model's predictions without an attack; None where they were not kept."""

    def __len__(self) -> int:
        return len(self.labels)

    def _place(self, name: str) -> int:
        """The number of an attack's column. Raises UserError if there is none of this name."""
        require(name in self.names, f"there is no column {name!r}; there are: {', '.join(self.names)}")
        return self.names.index(name)

    def column(self, name: str) -> Bool[Tensor, "examples"]:
        """Which examples survive the attack of this name."""
        return self.robust[:, self._place(name)]

    def accuracy(self, name: str) -> float:
        """The share of examples that survive the attack of this name."""
        return float(self.column(name).double().mean())

    def not_attacked(self, name: str) -> int:
        """How many examples survive the attack of this name because it could not start from them."""
        return 0 if self.untried is None else int(self.untried[:, self._place(name)].sum())

    def worst_case(self, names: Sequence[str]) -> Bool[Tensor, "examples"]:
        """Which examples survive every one of these attacks."""
        require(len(names) > 0, f"name at least one column; there are: {', '.join(self.names)}")
        return torch.stack([self.column(name) for name in names]).all(0)
