"""The KL terms of RegMix, which every method with an attack can add to its loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.methods.mutual_weights import MutualWeights
from regmix.objectives import cross_entropy, kl, log_probabilities
from regmix.types import Batch, Losses


@dataclass(frozen=True)
class Mutual(MutualWeights):
    """Asymmetric mutual regularisation of an attack's first and last output, and guidance by the clean one.

    With z_I = f(x + delta_0), z_F = f(x + delta_K) and z_C = f(x):

        alpha KL(z_F || z_I) + beta KL(z_I || z_F) + gamma KL(z_C || z_F)

    Gradients flow through all three outputs. A term of weight 0 is not computed. Source: arXiv 2510.05317, as far as
    it is known (see RegMix).
    """

    alpha_order: Literal["final_initial", "initial_final"] = "final_initial"
    """KL(z_F || z_I) as printed, or KL(z_I || z_F), for the term weighted by alpha (the text can be read both ways)."""
    beta_order: Literal["initial_final", "final_initial"] = "initial_final"
    """KL(z_I || z_F) as printed, or KL(z_F || z_I), for the term weighted by beta."""
    gamma_order: Literal["clean_final", "final_clean"] = "clean_final"
    """KL(z_C || z_F), or KL(z_F || z_C), for the term weighted by gamma (not known)."""
    alpha_stop: Literal["none", "initial", "final"] = "none"
    """The output that gets no gradient from the term weighted by alpha (not known)."""
    beta_stop: Literal["none", "initial", "final"] = "none"
    """The output that gets no gradient from the term weighted by beta (not known)."""
    gamma_stop: Literal["none", "clean", "final"] = "none"
    """The output that gets no gradient from the term weighted by gamma (not known)."""

    def losses(self, model: nn.Module, batch: Batch, delta: Tensor, initial: Tensor) -> Losses:
        """Cross-entropy at the end of an attack, f(x + delta), with the terms added; `initial` is the attack's z_I."""
        logits = model(batch.x + delta)
        classify = cross_entropy(logits, batch.y).mean()
        return self.join(Losses({"classify": classify}, logits, {}), initial, lambda: model(batch.x))

    def join(self, losses: Losses, initial: Tensor, clean: Callable[[], Tensor]) -> Losses:
        """The losses of a method, whose logits are z_F, with the terms added.

        `clean` computes z_C, and is not called if gamma is 0.
        """
        alpha, beta, gamma = self.per_example(losses.logits.shape[1])
        z = {"final": losses.logits}
        if self.pair:
            z["initial"] = initial
        if gamma:
            z["clean"] = clean()
        log_p = {name: log_probabilities(logits) for name, logits in z.items()}
        terms, stats = dict(losses.terms), dict(losses.stats)
        for term, weight, order, stop in (
            ("mutual_main", alpha, self.alpha_order, self.alpha_stop),
            ("mutual_aux", beta, self.beta_order, self.beta_stop),
            ("generalise", gamma, self.gamma_order, self.gamma_stop),
        ):
            if weight == 0:
                continue
            p, q = (log_p[side].detach() if side == stop else log_p[side] for side in order.split("_"))
            divergence = kl(p, q).mean()
            terms[term] = weight * divergence
            stats[term] = divergence.detach()
            # On the device, for moving it there would wait for the device.
            stats[f"{term}_weight"] = torch.full_like(stats[term], weight)
        return Losses(terms, losses.logits, stats)
