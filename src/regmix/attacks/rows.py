"""The rows of a batch that an attack works on, and how they leave when they are broken."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regmix.types import Images


class Rows:
    """The rows of a batch that an attack still works on; broken ones leave with the perturbation that broke them."""

    def __init__(self, x: Images) -> None:
        self.left = torch.arange(len(x), device=x.device)
        self.delta = torch.zeros_like(x)
        self.least = x.new_full((len(x),), float("inf"))

    def leave(self, out: Bool[Tensor, "rows"], delta: Images, *state: Tensor) -> tuple[Tensor, ...]:
        """Writes down the perturbations of the rows that leave; returns the state without these rows."""
        if not out.any():
            return state
        self.delta[self.left[out]] = delta[out]
        self.left = self.left[~out]
        return tuple(values[~out] for values in state)

    def pairs(self, wrong: Int[Tensor, "batch targets"], together: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(row, target) pairs of the rows that are left: those with the first target, then the other targets.

        As many of the others at once as make `together` pairs: most rows that fall at all fall for the first.
        """
        column = 0
        while column < wrong.shape[1] and len(self.left):
            count = max(1, together // len(self.left)) if column else 1
            block = wrong[self.left, column : column + count]
            yield self.left.repeat_interleave(block.shape[1]), block.flatten()
            column += count

    def again(self, pairs: Sequence[tuple[Tensor, Tensor]], together: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of the (row, target) pairs whose rows are left, `together` at once."""
        rows, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True)) if pairs else (self.left[:0],) * 2
        while len(rows):
            alive = torch.isin(rows, self.left)
            rows, targets = rows[alive], targets[alive]
            if len(rows):
                yield rows[:together], targets[:together]
            rows, targets = rows[together:], targets[together:]

    def settle(self, pairs: Tensor, broken: Bool[Tensor, "pairs"], delta: Images, distance: Tensor) -> None:
        """Writes down, per row, the perturbation that came nearest to the boundary, whatever `distance` measures.

        Rows with a broken pair leave with its perturbation.
        """
        self.least.scatter_reduce_(0, pairs, distance, "amin")
        nearest = distance == self.least[pairs]
        self.delta[pairs[nearest]] = delta[nearest]
        # The last one written stays: the one with the likeliest target.
        for pair in broken.nonzero()[:, 0].flip(0).tolist():
            self.delta[pairs[pair]] = delta[pair]
        self.left = self.left[~torch.isin(self.left, pairs[broken])]
