"""When a training writes its weights and its state: at the end of every epoch, unless that would take too much time."""

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from regmix.runs import Checkpoint, Run
from regmix.runs.records import Epoch

SHARE = 0.02
"""Of the time of a training, which writing may take. On a fast GPU it would take a tenth and more of an epoch."""
CHEAP = 0.1
"""Seconds; writing that takes no longer is always done."""


class Saving:
    """Writes the end of an epoch into a run directory, or keeps a copy of it, which is written later.

    What is kept is lost only if the process is killed; the training then repeats those epochs. Rows of metrics.jsonl
    are written with the weights of their epochs, so that nobody takes older weights for those of the last row, and all
    before the state that counts the epochs as trained.
    """

    def __init__(self, run: Run, config: str) -> None:
        """config: the text of config.json, which the weights keep parts of."""
        self._run, self._config = run, config
        self._weights: dict[Checkpoint, Mapping[str, Tensor]] = {}
        self._state: Mapping[str, object] | None = None
        self._rows: list[Epoch] = []
        self._wrote, self._took = time.perf_counter(), 0.0

    def is_due(self) -> bool:
        """Whether writing now keeps within its share of the time."""
        return self._took <= CHEAP or time.perf_counter() - self._wrote >= self._took / SHARE

    def add(self, row: Epoch) -> None:
        """Adds the row of an epoch that is about to be written or kept."""
        self._rows.append(row)

    def keep(
        self, weights: Mapping[Checkpoint, Mapping[str, Tensor]], state: Mapping[str, object] | None = None
    ) -> None:
        """Keeps copies on the CPU, in place of what was kept before."""
        if self._run.writes:
            self._weights |= {checkpoint: _copied(tensors) for checkpoint, tensors in weights.items()}
            if state is not None:
                self._state = _copied(state)

    def write(
        self, weights: Mapping[Checkpoint, Mapping[str, Tensor]], state: Mapping[str, object] | None,
        *, healthy: bool = False,
    ) -> None:  # fmt: skip
        """Writes these, and before them all rows and the weights that were kept of other checkpoints.

        Args:
            healthy: the guard may go back to this state.
        """
        began = time.perf_counter()
        while self._rows:  # a write that fails may be tried again
            self._run.append_metrics(self._rows.pop(0))
        for checkpoint, tensors in {**self._weights, **weights}.items():
            self._run.save_weights(checkpoint, tensors, self._config)
        if state is not None:
            self._run.save_state(state, healthy=healthy)
        self.forget()
        self._wrote = time.perf_counter()
        self._took = self._wrote - began

    def flush(self) -> None:
        """Writes what is kept."""
        if self._rows or self._weights or self._state is not None:
            self.write({}, self._state)

    def forget(self) -> None:
        """Drops what is kept, because the training has gone back to an earlier state, or because it is written."""
        self._weights, self._state, self._rows = {}, None, []


def _copied(values: Any) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), values)
