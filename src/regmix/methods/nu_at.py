"""NuAT: nuclear-norm adversarial training."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.methods.base import Method
from regmix.methods.guided import guided_losses
from regmix.methods.memory import Memory
from regmix.methods.shared import check_weights
from regmix.objectives import precise
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class NuAt(Method):
    """Cross-entropy on the clean images and the nuclear norm of the batch's change of logits.

        loss = CE(f(x), y) + lam_e ||f(x) - f(x + delta)||_* / B

    delta is one step of eps from a random corner of the ball of eps / 2; in every other step the attack maximises the
    whole loss, otherwise cross-entropy alone. lam_e = lam e / (epochs - hold) in epoch e, counted from 0; it is lam in
    the last `hold` epochs.

    Source: Sriramanan et al., NeurIPS 2021, and its public code for ResNet-18 on CIFAR-10, which has two scripts: with
    weight averaging (`--averaging ema`) lam is 4 and grows over all epochs, which is the default here; without it lam
    is 4.5 and stays at its end for the last ten of 100 epochs (lam=4.5, hold=10). Deviation: the clean output that
    guides the attack is computed only in the steps that use it. The FastAT benchmark attacks in train mode, this method
    in evaluation mode. Each of several processes takes the norm of its share of the batch.
    """

    title = "NuAT"
    needs_clock = True
    name: Tag[Literal["nu_at"]] = field(default="nu_at", kw_only=True)
    lam: float = 4.0
    """Final weight of the nuclear norm (the code's script with weight averaging: 4; without: 4.5)."""
    hold: int = 0
    """Epochs at the end in which the weight stays lam (the code's script with weight averaging: 0; without: 10)."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam)
        require(self.hold >= 0, f"method hold is {self.hold}; it must be 0 or positive")

    def phase(self, clock: Clock) -> tuple[float, bool]:
        """The weight of the norm, and whether it guides the attack."""
        ramp = max(1, clock.epochs - self.hold)
        return self.lam * min(clock.epoch, ramp) / ramp, clock.step % 2 == 1

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        weight, guide = self.phase(clock)
        return guided_losses(model, batch, threat, _nuclear_norm, weight, guide=guide)


def _nuclear_norm(one: Tensor, other: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(precise(one) - precise(other), "nuc")
    return norm / len(one)
