"""Steps whose gradient is not finite: noticed on the device, and made to change nothing."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from regmix.config.experiment import OnNonfinite
from regmix.runtime import processes
from regmix.runtime.sharded import is_sharded, local
from regmix.training.statistics import Statistics
from regmix.training.tally import Tally
from regmix.types import UserError

LOOK = 50
"""Steps between two looks at whether the gradients were finite, for a look waits for the device."""


class Finite:
    """Watches the gradients of a model's parameters; no call waits for the device.

    `begin` comes before the forward passes of a step and `end` after its backward passes. Where an element of a
    gradient is infinite or NaN, all gradients become zero and BatchNorm's statistics what they were at `begin`:
    momentum and weight decay act as in any other step.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [*model.parameters()]
        self._statistics = Statistics(model)
        self._before: Tensor | None = None

    def begin(self) -> None:
        """Remembers BatchNorm's statistics."""
        self._before = self._statistics.read()

    @torch.no_grad()
    def end(self) -> Bool[Tensor, ""]:
        """Whether the gradients were finite."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        fine = _all_finite(gradients)
        if fine.device.type == "cpu" and bool(fine):  # there is nothing to wait for
            return fine
        for gradient in gradients:
            local(gradient).masked_fill_(~fine, 0)
        now = self._statistics.read()
        if self._before is not None and now is not None:
            self._statistics.write(torch.where(fine, now, self._before))
        return fine


def check_steps(tally: Tally, left_out: Sequence[int], action: OnNonfinite, epoch: int, steps: int) -> list[int]:
    """The steps of an epoch, whose tally this is, that the run has to go back for: none unless action is rollback.

    Args:
        left_out: the steps of the epoch that it went back for before.
        epoch, steps: the number of the epoch, counted from 0, and of its steps.

    Raises:
        UserError: there is such a step and action is stop, or there are more than a tenth of the epoch's steps, or no
            others.
    """
    bad = tally.bad_steps()
    lost = len(bad) + len(left_out)
    if bad and (action == "stop" or lost > max(1, steps // 10) or lost == steps):
        raise UserError(
            f"{told(bad, tally, epoch)}; the run stops: try a lower --lr, or --precision 32 (last saved: epoch {epoch})"
        )
    return bad if action == "rollback" else []


def told(bad: Sequence[int], tally: Tally, epoch: int) -> str:
    """What happened in these steps, as a clause."""
    which = f"step {bad[0] + 1}" if len(bad) == 1 else f"{len(bad)} steps, the first of which is {bad[0] + 1},"
    return f"epoch {epoch + 1}: the gradient of {which} was not finite ({', '.join(tally.causes())})"


def check_weights(model: nn.Module, epoch: int) -> None:
    """Raises UserError if a parameter is infinite or NaN."""
    if not _all_finite([*model.parameters()]):
        raise UserError(
            f"epoch {epoch + 1}: the weights are not finite; the run stops before it saves such weights: try a lower "
            f"--lr, or --precision 32 (last saved: epoch {epoch})"
        )


def _all_finite(tensors: Sequence[Tensor]) -> Bool[Tensor, ""]:
    # An infinite or NaN element makes its tensor's sum so, and a sum is the cheapest thing to ask for.
    fine = torch.stack([local(tensor).sum() for tensor in tensors]).isfinite().all()
    return processes.total((~fine).int()) == 0 if is_sharded(tensors) else fine
