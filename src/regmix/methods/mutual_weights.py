"""How much RegMix's KL terms weigh."""

from dataclasses import dataclass
from typing import Literal

from regmix.methods.base import check_weights

AUTOMATIC = 5.0, 2.0, 2.0


@dataclass(frozen=True)
class MutualWeights:
    """The weights of the three terms in the paper's units, and what they are worth per example.

    With C classes: alpha / C, beta / C and gamma / C where the paper's average is read as one over elements [B, C].

    Raises:
        UserError: a weight that is negative or not finite.
    """

    alpha: float = 0.0
    """Weight of the main mutual term, KL(z_F || z_I), in the paper's units (see reduction)."""
    beta: float = 0.0
    """Weight of the auxiliary mutual term, KL(z_I || z_F), in the paper's units."""
    gamma: float = 0.0
    """Weight of the clean guidance, KL(z_C || z_F), in the paper's units."""
    reduction: Literal["element", "example"] = "element"
    """Average of the KL terms over every element [B, C], which makes a weight of 50 worth 5 per example at 10
    classes, or over examples only (not known)."""
    weights: Literal["given", "auto"] = "given"
    """auto: 5, 2, 2 per example (50, 20, 20 at 10 classes) at any number of classes, without alpha, beta and gamma."""

    def __post_init__(self) -> None:
        check_weights(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    def per_example(self, classes: int) -> tuple[float, float, float]:
        """What alpha, beta and gamma multiply the mean divergence of an example by."""
        if self.weights == "auto":
            return AUTOMATIC
        scale = classes if self.reduction == "element" else 1
        return self.alpha / scale, self.beta / scale, self.gamma / scale

    @property
    def pair(self) -> bool:
        """Whether there is a term in z_I, so that the attack has to keep its first output's graph."""
        return any(self.per_example(1)[:2])
