"""Steps whose gradient is infinite or NaN: they are found on the device, and change nothing."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from regmix.config import OnNonfinite
from regmix.runtime import processes
from regmix.runtime.sharded import is_sharded, local
from regmix.training.statistics import Statistics
from regmix.training.tally import Tally
from regmix.types import UserError

CHECK_EVERY = 50
"""Steps between two checks whether the gradients were finite, because a check waits for the device."""


class Finite:
    """Checks the gradients of a model's parameters without waiting for the device.

    Call `begin` before the forward passes of a step and `end` after its backward passes. If an element of a gradient
    is infinite or NaN, all gradients become zero, and BatchNorm's statistics return to their values at `begin`.
    Momentum and weight decay act as in any other step.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [*model.parameters()]
        self._statistics = Statistics(model)
        self._before: Tensor | None = None

    def begin(self) -> None:
        """Remembers BatchNorm's statistics."""
        self._before = self._statistics.read()

    @torch.no_grad()
    def end(self, *, look: bool = True) -> Bool[Tensor, ""]:
        """Whether the gradients were finite.

        With `look` the answer is read on a CPU, where that waits for no device, and spares the rest of the work.
        """
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        fine = _all_finite(gradients)
        if look and fine.device.type == "cpu" and bool(fine):
            return fine
        bad = ~fine
        for gradient in gradients:
            local(gradient).masked_fill_(bad, 0)
        now = self._statistics.read()
        if self._before is not None and now is not None:
            self._statistics.write(torch.where(fine, now, self._before))
        return fine


def check_steps(tally: Tally, left_out: Sequence[int], action: OnNonfinite, epoch: int, steps: int) -> list[int]:
    """The lost steps of an epoch for which the run has to go back: none unless action is rollback.

    Args:
        tally: the sums of the epoch so far.
        left_out: the steps of the epoch for which the run went back before.
        epoch: index of the epoch, counted from 0.
        steps: number of steps of an epoch.

    Raises:
        UserError: there is a lost step and action is stop, or more than a tenth of the steps are lost, or all of them.
    """
    bad = tally.bad_steps()
    lost = len(bad) + len(left_out)
    if bad and (action == "stop" or lost > max(1, steps // 10) or lost == steps):
        raise UserError(
            f"{describe(bad, tally, epoch)}; the run stops: try a lower --lr, or --precision 32 "
            f"(last saved: epoch {epoch})"
        )
    return bad if action == "rollback" else []


def describe(bad: Sequence[int], tally: Tally, epoch: int) -> str:
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
    parts = [local(tensor) for tensor in tensors]
    # A sum is not finite if an element is not. On a CPU it is the cheapest such test; a GPU has norms of many tensors
    # at once, which spares it a launch for every parameter.
    sums = [part.sum() for part in parts] if parts[0].device.type == "cpu" else torch._foreach_norm(parts, 1)
    fine = torch.stack([*sums]).isfinite().all()
    return processes.total((~fine).int()) == 0 if is_sharded(tensors) else fine
