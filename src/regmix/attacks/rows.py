"""The rows of a batch that are still under attack."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from regmix.types import Images


def waits_for_nothing(values: Tensor) -> bool:
    """Whether reading a value of a tensor waits for no device."""
    return values.device.type == "cpu"


def put(rows: Bool[Tensor, "rows"], new: Tensor, old: Tensor) -> Tensor:
    """`new` in these rows and `old` in the others; in place where the choice of rows waits for no device."""
    if waits_for_nothing(old):
        old[rows] = new[rows]
        return old
    return torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old)


class Rows:
    """The rows of a batch that survive so far; a row that is broken leaves with the perturbation that broke it.

    Attributes:
        left: indices of the rows that survive.
        delta: the perturbation of every row of the batch, 0 at first.
        least: the smallest distance to the boundary that `settle` has seen, per row of the batch.
    """

    def __init__(self, x: Images) -> None:
        self.left = torch.arange(len(x), device=x.device)
        self.delta = torch.zeros_like(x)
        self.least = x.new_full((len(x),), float("inf"))

    def leave(self, out: Bool[Tensor, "rows"], delta: Images, *state: Tensor) -> tuple[Tensor, ...]:
        """Records the perturbations of the rows that leave; returns the state without these rows."""
        gone = out.nonzero()[:, 0]  # positions, because a GPU is waited for at every mask
        if not len(gone):
            return state
        stay = (~out).nonzero()[:, 0]
        self.delta[self.left[gone]] = delta[gone]
        self.left = self.left[stay]
        return tuple(values[stay] for values in state)

    def pairs(self, wrong: Int[Tensor, "batch targets"], together: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(row, target) pairs of the rows that survive: first the likeliest target alone, then the others.

        Most rows that are broken at all are broken with the first target. The other targets are combined into blocks
        of about `together` pairs.
        """
        column = 0
        while column < wrong.shape[1] and len(self.left):
            count = max(1, together // len(self.left)) if column else 1
            block = wrong[self.left, column : column + count]
            yield self.left.repeat_interleave(block.shape[1]), block.flatten()
            column += count

    def again(self, pairs: Sequence[tuple[Tensor, ...]], together: int) -> Iterator[tuple[Tensor, ...]]:
        """The given (row, target, ...) tuples whose rows still survive, in blocks of `together`."""
        waiting = tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))
        while waiting and len(waiting[0]):
            alive = torch.isin(waiting[0], self.left)
            waiting = tuple(part[alive] for part in waiting)
            if len(waiting[0]):
                yield tuple(part[:together] for part in waiting)
            waiting = tuple(part[together:] for part in waiting)

    def settle(self, pairs: Tensor, broken: Bool[Tensor, "pairs"], delta: Images, distance: Tensor) -> None:
        """Records, per row, the perturbation with the smallest `distance` to the boundary, in any measure.

        Rows with a broken pair leave with the perturbation of that pair.
        """
        self.least.scatter_reduce_(0, pairs, distance, "amin")
        nearest = distance == self.least[pairs]
        self.delta[pairs[nearest]] = delta[nearest]
        # In reverse order, so that the pair with the likeliest target is written last and stays.
        for pair in broken.nonzero()[:, 0].flip(0).tolist():
            self.delta[pairs[pair]] = delta[pair]
        self.left = self.left[~torch.isin(self.left, pairs[broken])]
