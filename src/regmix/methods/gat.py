"""GAT: guided adversarial training."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from regmix.methods.base import Method
from regmix.methods.guided import guided_losses
from regmix.methods.memory import Memory
from regmix.methods.shared import check_weights
from regmix.objectives import log_probabilities
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag, require


@dataclass(frozen=True)
class Gat(Method):
    """Cross-entropy on the clean images and the squared distance of clean and adversarial probabilities.

        loss = CE(f(x), y) + lam mean ||softmax f(x) - softmax f(x + delta)||_2^2

    delta is one step of eps from a random corner of the ball of eps / 2; in every other step the attack maximises the
    whole loss, otherwise cross-entropy alone. Source: Sriramanan et al., NeurIPS 2020, and its public code for
    CIFAR-10. Deviation: the clean output that guides the attack is computed only in the steps that use it. The FastAT
    benchmark's code takes the softmax of probabilities in the attack of every other step, this method does not.
    """

    title = "GAT"
    needs_clock = True
    name: Tag[Literal["gat"]] = field(default="gat", kw_only=True)
    lam: float = 10.0
    """Weight of the squared distance (published for CIFAR-10: 10)."""
    late: float = 4.0
    """Factor on lam in the last part of the training."""
    late_from: float = 0.86
    """Share of the epochs after which the factor applies (published: epoch 86 of 100)."""

    def __post_init__(self) -> None:
        check_weights(lam=self.lam, late=self.late)
        require(0 <= self.late_from <= 1, f"method late_from is {self.late_from}; it must lie in [0, 1]")

    def phase(self, clock: Clock) -> tuple[float, bool]:
        """The weight of the distance, and whether it guides the attack."""
        late = clock.epoch >= round(self.late_from * clock.epochs)
        return self.lam * (self.late if late else 1), clock.step % 2 == 1

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        weight, guide = self.phase(clock)
        return guided_losses(model, batch, threat, _squared_distance, weight, guide=guide)


def _squared_distance(one: Tensor, other: Tensor) -> Tensor:
    return (log_probabilities(one).exp() - log_probabilities(other).exp()).square().sum(1).mean()
