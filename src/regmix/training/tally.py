"""Sums of an epoch's losses, kept on the device, so that reading them waits for it only once."""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.objectives import accuracy
from regmix.runtime import processes
from regmix.types import Batch, Losses


class Tally:
    """Averages over the examples of an epoch, of all processes: loss terms, statistics, and accuracy on the method's
    own adversarial examples.

    A step whose gradient was not finite does not count; its number is kept.
    """

    def __init__(self, device: torch.device, steps: int) -> None:
        self._device = device
        self._names: list[str] = []
        self._sums = torch.zeros(0, device=device)
        self._unknown = torch.zeros(0, device=device, dtype=torch.int64)
        self._examples = torch.zeros((), device=device)
        self._bad = torch.zeros(steps, dtype=torch.bool, device=device)

    @torch.no_grad()
    def add(self, step: int, batch: Batch, losses: Losses, fine: Bool[Tensor, ""]) -> None:
        """Adds a step of the epoch, weighted by its batch size; `fine` says whether its gradient was finite."""
        values = {f"terms/{name}": term for name, term in losses.terms.items()}
        values |= {f"stats/{name}": value for name, value in losses.stats.items()}
        values["train_robust"] = accuracy(losses.logits, batch.y)
        if not self._names:
            self._names = [*values]
            self._sums = torch.zeros(len(values), device=self._device)
            self._unknown = torch.zeros(len(values), device=self._device, dtype=torch.int64)
        assert [*values] == self._names, "a method reports the same terms in every step of an epoch"
        row = torch.stack([value.detach().to(self._device, torch.float32) for value in values.values()])
        self._sums += torch.where(fine & row.isfinite(), row * len(batch.x), 0)
        self._unknown += ~row.isfinite()
        self._examples += len(batch.x) * fine
        self._bad[step] = ~fine

    def means(self) -> dict[str, float]:
        """The averages over the examples so far: `terms/NAME`, `stats/NAME` and `train_robust`; NaN without any."""
        means = processes.total(self._sums) / processes.total(self._examples)
        return dict(zip(self._names, means.tolist(), strict=True))

    def bad_steps(self) -> list[int]:
        """The steps whose gradient was not finite."""
        steps: list[int] = self._bad.nonzero()[:, 0].tolist()
        return steps

    def causes(self) -> list[str]:
        """The loss terms that were not finite in some step; `gradient` if only the gradient was not finite."""
        counts = dict(zip(self._names, processes.total(self._unknown).tolist(), strict=True))
        terms = [name.removeprefix("terms/") for name, count in counts.items() if count and name.startswith("terms/")]
        return terms or ["gradient"]

    def state_dict(self) -> dict[str, Any]:
        """The sums of every process, because a resumed run may have as many processes again."""
        own = [self._sums.cpu(), self._unknown.cpu(), self._examples.cpu()]
        return {"names": self._names, "shares": processes.every(own), "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores this process's own sums; if the number of processes has changed, rank 0 takes the sums of all."""
        self._names, self._bad = state["names"], state["bad"].to(self._device)
        shares = state["shares"]
        if len(shares) == processes.size():
            own = shares[processes.rank()]
        else:
            own = [torch.stack(parts).sum(0) for parts in zip(*shares, strict=True)]
            own = own if processes.rank() == 0 else [torch.zeros_like(part) for part in own]
        self._sums, self._unknown, self._examples = (part.to(self._device) for part in own)
