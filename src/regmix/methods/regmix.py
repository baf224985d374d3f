"""RegMix: fast adversarial training with asymmetric mutual regularisation."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import ascend
from regmix.methods.base import Method, batchnorm_mode, check_attack, check_weights
from regmix.objectives import cross_entropy, hard, kl, log_probabilities, margin
from regmix.priors import Memory, Prior
from regmix.threats import Threat
from regmix.types import Batch, Losses, Tag


@dataclass(frozen=True)
class RegMix(Method):
    """PGD-2 from a random corner; its first and last output regularise each other, the clean output guides both.

    With delta_0 = eps sign(U(-1, 1)), delta_2 two steps of PGD later, z_I = f(x + delta_0), z_F = f(x + delta_2) and
    z_C = f(x):

        loss = CE(z_F, y) + alpha KL(z_F || z_I) + beta KL(z_I || z_F)        asymmetric mutual regularisation
                          + gamma KL(z_C || z_F)                              generalisation towards the clean output

    Gradients flow through all three outputs. z_I is the attack's own first forward pass. A term of weight 0 is not
    computed, so that zero weights leave PGD-2-AT from a random corner.

    Source: arXiv 2510.05317, of which only the abstract, this formula, a figure caption and the settings 50/20/20
    (CIFAR-10) and 1200/700 (CIFAR-100) were at hand. Every field whose text says "not known" stands for something
    that they leave open.
    """

    name: Tag[Literal["regmix"]] = field(default="regmix", kw_only=True)
    alpha: float = 50.0
    """Weight of the main mutual term, KL(z_F || z_I), in the paper's units (see reduction)."""
    beta: float = 20.0
    """Weight of the auxiliary mutual term, KL(z_I || z_F), in the paper's units."""
    gamma: float = 20.0
    """Weight of the clean guidance, KL(z_C || z_F), in the paper's units."""
    steps: int = 2
    """Number of gradient steps of the attack."""
    step_size: float = 1.0
    """Length of a step in units of eps (not known; 1 as in FGSM-PGK: from a corner, two steps of 1/2 only get back
    to the clean image)."""
    start: Literal["fresh", "carried"] = "fresh"
    """A new random corner in every step, or each sample's last perturbation from the epoch before (not known)."""
    alpha_order: Literal["final_initial", "initial_final"] = "final_initial"
    """KL(z_F || z_I) as printed, or KL(z_I || z_F), for the term weighted by alpha (the text can be read both ways)."""
    beta_order: Literal["initial_final", "final_initial"] = "initial_final"
    """KL(z_I || z_F) as printed, or KL(z_F || z_I), for the term weighted by beta."""
    gamma_order: Literal["clean_final", "final_clean"] = "clean_final"
    """KL(z_C || z_F), or KL(z_F || z_C), for the term weighted by gamma (not known)."""
    reduction: Literal["element", "example"] = "element"
    """Average of the KL terms over every element [B, C], which makes a weight of 50 worth 5 per example at 10
    classes, or over examples only (not known)."""
    alpha_stop: Literal["none", "initial", "final"] = "none"
    """The output that gets no gradient from the term weighted by alpha (not known)."""
    beta_stop: Literal["none", "initial", "final"] = "none"
    """The output that gets no gradient from the term weighted by beta (not known)."""
    gamma_stop: Literal["none", "clean", "final"] = "none"
    """The output that gets no gradient from the term weighted by gamma (not known)."""
    attack_batchnorm: Literal["train", "eval"] = "train"
    """BatchNorm during the attack: batch statistics, updating the running ones, or the running ones (not known). With
    eval, z_I is computed anew in train mode, which costs one more forward pass."""
    inner: Literal["cross_entropy", "smoothed", "margin"] = "cross_entropy"
    """What the attack climbs: cross-entropy of the hard label, of the smoothed label, or the margin (not known)."""

    def __post_init__(self) -> None:
        check_attack(self.steps, self.step_size)
        check_weights(alpha=self.alpha, beta=self.beta, gamma=self.gamma)

    def memory(
        self, count: int, shape: tuple[int, int, int], pad: int, threat: Threat, device: torch.device
    ) -> Memory | None:
        if self.start == "fresh":
            return None
        return Memory(delta=Prior(count, shape, pad, device, limit=threat.eps))

    def __call__(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None = None) -> Losses:
        x, y = batch.x, batch.y
        mutual = self.alpha != 0 or self.beta != 0
        share = mutual and self.attack_batchnorm == "train"
        start = threat.corner(x)
        if memory is not None and memory.epoch > 0:
            start = memory.priors["delta"].read(batch)
        with batchnorm_mode(model, self.attack_batchnorm):
            ascent = ascend(
                model,
                x,
                y if self.inner == "smoothed" else hard(y),
                threat,
                start=start,
                steps=self.steps,
                step_size=self.step_size * threat.eps,
                objective=margin if self.inner == "margin" else cross_entropy,
                keep_graph=share,
            )
        if memory is not None:
            memory.priors["delta"].write(batch, ascent.delta)

        z = {}
        if mutual:
            z["initial"] = ascent.first_logits if share else model(x + start)
        z["final"] = model(x + ascent.delta)
        if self.gamma != 0:
            z["clean"] = model(x)
        log_p = {name: log_probabilities(logits) for name, logits in z.items()}

        terms = {"classify": cross_entropy(z["final"], y).mean()}
        stats: dict[str, Tensor] = {}
        for term, weight, order, stop in (
            ("mutual_main", self.alpha, self.alpha_order, self.alpha_stop),
            ("mutual_aux", self.beta, self.beta_order, self.beta_stop),
            ("generalise", self.gamma, self.gamma_order, self.gamma_stop),
        ):
            if weight == 0:
                continue
            p, q = (log_p[side].detach() if side == stop else log_p[side] for side in order.split("_"))
            divergence = kl(p, q).mean()
            weight /= z["final"].shape[1] if self.reduction == "element" else 1
            terms[term] = weight * divergence
            stats[term] = divergence.detach()
            stats[f"{term}_weight"] = torch.as_tensor(weight)
        return Losses(terms, z["final"], stats)
