"""RegMix: fast adversarial training with asymmetric mutual regularisation."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.attacks import ascend
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup, perturbations
from regmix.methods.mutual import Mutual
from regmix.methods.shared import attack_ratio, batchnorm_mode, check_attack
from regmix.objectives import cross_entropy, margin
from regmix.threats import Threat
from regmix.types import Batch, Clock, Losses, Tag


@dataclass(frozen=True)
class RegMix(Mutual, Method):
    """PGD-2 from a random corner; its first and last output regularise each other, the clean one guides the last.

    With delta_0 = eps sign(U(-1, 1)), delta_2 two steps of PGD later, z_I = f(x + delta_0), z_F = f(x + delta_2) and
    z_C = f(x):

        loss = CE(z_F, y) + alpha KL(z_F || z_I) + beta KL(z_I || z_F)        asymmetric mutual regularisation
                          + gamma KL(z_C || z_F)                              generalisation towards the clean output

    z_I is the attack's own first forward pass. With zero weights it is PGD-2-AT from a random corner. The paper's
    weight averaging is not known; `--averaging gated_ema`, that of FGSM-PGK, uses the statistic `ratio`, acc(z_F) /
    acc(z_I) over the batch.

    Source: arXiv 2510.05317, of which only the abstract, this formula, a figure caption and two settings were at hand.
    A field whose text says "not known" is something that these sources leave open.
    """

    title = "RegMix"
    reports_ratio = True
    name: Tag[Literal["regmix"]] = field(default="regmix", kw_only=True)
    alpha: float = 50.0
    """Weight of the main mutual term, KL(z_F || z_I), in the paper's units (see reduction)."""
    beta: float = 20.0
    """Weight of the auxiliary mutual term, KL(z_I || z_F), in the paper's units."""
    gamma: float = 20.0
    """Weight of the clean guidance, KL(z_C || z_F), in the paper's units."""
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
    steps: int = 2
    """Number of gradient steps of the attack."""
    step_size: float = 1.0
    """Length of a step in units of eps (not known; from a corner, two steps of 1/2 reach at most the image)."""
    start: Literal["fresh", "carried"] = "fresh"
    """A new random corner in every step, or each sample's last perturbation from the epoch before (not known)."""
    attack_batchnorm: Literal["train", "eval"] = "train"
    """BatchNorm during the attack: batch statistics, updating the running ones, or the running ones (not known). With
    eval, z_I is computed again in train mode, which costs one more forward pass."""
    inner: Literal["cross_entropy", "smoothed", "margin"] = "cross_entropy"
    """Loss of the attack: cross-entropy of the hard label, of the smoothed label, or the margin (not known)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_attack(self.steps, self.step_size)

    def memory(self, setup: Setup) -> Memory | None:
        if self.start == "fresh":
            return None
        return Memory(delta=perturbations(setup))

    @property
    def needs_clock(self) -> bool:
        return self.start == "carried"

    def phase(self, clock: Clock) -> bool:
        return self.start == "carried" and clock.epoch == 0

    def reading(self) -> dict[str, tuple[str, str]]:
        return {
            "mutual_main": (self.alpha_order, self.alpha_stop),
            "mutual_aux": (self.beta_order, self.beta_stop),
            "generalise": (self.gamma_order, self.gamma_stop),
        }

    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        x = batch.x
        share = self.pair and self.attack_batchnorm == "train"
        start = threat.corner(x) if memory is None or clock.epoch == 0 else memory["delta"].read(batch)
        with batchnorm_mode(model, self.attack_batchnorm):
            ascent = ascend(
                model, x, batch.target if self.inner == "smoothed" else batch.y, threat,
                start=start, steps=self.steps, step_size=self.step_size * threat.eps,
                objective=margin if self.inner == "margin" else cross_entropy, keep_graph=share,
            )  # fmt: skip
        if memory is not None:
            memory["delta"].write(batch, ascent.delta)
        initial = model(x + start) if self.pair and not share else ascent.first_logits
        losses = self.losses(model, batch, ascent.delta, initial)
        return losses._replace(stats=losses.stats | {"ratio": attack_ratio(batch, losses.logits, initial)})
