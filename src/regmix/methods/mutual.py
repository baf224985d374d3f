"""The KL terms of RegMix, which every method with an attack can add to its loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.methods.shared import check_weights
from regmix.objectives import cross_entropy, kl, log_probabilities
from regmix.types import Batch, Losses

AUTOMATIC = 5.0, 2.0, 2.0


@dataclass(frozen=True)
class Mutual:
    """Weights of the KL terms between the first, the last and the clean output of an attack.

    With z_I = f(x + delta_0), z_F = f(x + delta_K), z_C = f(x) and C classes, the terms are

        (alpha KL(z_F || z_I) + beta KL(z_I || z_F) + gamma KL(z_C || z_F)) / C        (C is 1 with reduction="example")

    as means over the examples. Gradients flow through all three outputs. A term of weight 0 is not computed.
    Source: arXiv 2510.05317, as far as it is known (see RegMix).

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
    """Mean of the KL terms over every element [B, classes], which makes a weight of 50 worth 5 per example at 10
    classes, or over the examples only (not known)."""
    weights: Literal["given", "auto"] = "given"
    """auto: 5, 2, 2 per example (50, 20, 20 at 10 classes) at any number of classes; alpha, beta, gamma are ignored."""

    def __post_init__(self) -> None:
        check_weights(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    @staticmethod
    def of(method: object) -> "Mutual | None":
        """The weights of these terms in a method; None if it cannot have them."""
        weights = method if isinstance(method, Mutual) else getattr(method, "mutual", None)
        return weights if isinstance(weights, Mutual) else None

    def per_example(self, classes: int) -> tuple[float, float, float]:
        """The factors of alpha's, beta's and gamma's divergence, as a mean over examples."""
        if self.weights == "auto":
            return AUTOMATIC
        scale = classes if self.reduction == "element" else 1
        return self.alpha / scale, self.beta / scale, self.gamma / scale

    @property
    def pair(self) -> bool:
        """Whether there is a term in z_I, so that the attack has to keep the graph of its first output."""
        return any(self.per_example(1)[:2])

    def reading(self) -> dict[str, tuple[str, str]]:
        """How each term is computed: the order of KL (p_q for KL(z_p || z_q)), and the output without gradient."""
        return {
            "mutual_main": ("final_initial", "none"),
            "mutual_aux": ("initial_final", "none"),
            "generalise": ("clean_final", "none"),
        }

    def losses(self, model: nn.Module, batch: Batch, delta: Tensor, initial: Tensor) -> Losses:
        """Cross-entropy of f(x + delta) at the end of an attack, and the terms; `initial` is the attack's z_I."""
        logits = model(batch.x + delta)
        classify = batch.mean(cross_entropy(logits, batch.target))
        return self.join(Losses({"classify": classify}, logits, {}), initial, lambda: model(batch.x))

    def join(self, losses: Losses, initial: Tensor, clean: Callable[[], Tensor]) -> Losses:
        """The losses of a method, whose logits are z_F, and the terms.

        `clean` computes z_C; it is not called if gamma is 0.
        """
        weights = self.per_example(losses.logits.shape[1])
        z = {"final": losses.logits}
        if self.pair:
            z["initial"] = initial
        if weights[2]:
            z["clean"] = clean()
        log_p = {output: log_probabilities(logits) for output, logits in z.items()}
        terms, stats = dict(losses.terms), dict(losses.stats)
        for weight, (term, (order, stop)) in zip(weights, self.reading().items(), strict=True):
            if weight == 0:
                continue
            p, q = (log_p[output].detach() if output == stop else log_p[output] for output in order.split("_"))
            divergence = kl(p, q).mean()
            terms[term] = weight * divergence
            stats[term] = divergence.detach()
            # Made on the device, because moving it there would wait for the device.
            stats[f"{term}_weight"] = torch.full_like(stats[term], weight)
        return Losses(terms, losses.logits, stats)
