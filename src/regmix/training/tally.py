"""Sums of an epoch's losses, kept on the device so that reading them costs one synchronisation an epoch."""

import torch
from torch import Tensor

from regmix.objectives import accuracy
from regmix.types import Batch, Losses


class Tally:
    """Averages of the loss terms, the statistics and the accuracy on the method's own examples."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._examples = 0

    @torch.no_grad()
    def add(self, batch: Batch, losses: Losses) -> None:
        """Adds one batch, weighted by its size."""
        size = len(batch.x)
        values = {f"terms/{name}": term for name, term in losses.terms.items()}
        values |= {f"stats/{name}": value for name, value in losses.stats.items()}
        values["train_robust"] = accuracy(losses.logits, batch.y)
        for name, value in values.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros((), device=self._device)
            self._sums[name] += value.detach().to(self._device, torch.float32) * size
        self._examples += size

    def means(self) -> dict[str, float]:
        """The averages over the examples so far: `terms/NAME`, `stats/NAME` and `train_robust`."""
        if not self._sums:
            return {}
        values = (torch.stack(list(self._sums.values())) / self._examples).tolist()
        return dict(zip(self._sums, values, strict=True))
