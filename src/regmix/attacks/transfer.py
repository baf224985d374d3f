"""Transfer attack: adversarial examples of another model."""

from dataclasses import dataclass, field

from regmix.attacks.attempt import Attempt, attempt
from regmix.attacks.base import Attack, passes
from regmix.attacks.mi_fgsm import MiFgsm
from regmix.threats import Threat
from regmix.types import Images, Labels, Model


@dataclass(frozen=True)
class Transfer:
    """The perturbations that an attack finds against a source model; the attacked model is not used.

    If they break a model more often than white-box attacks do, its gradients are masked (arXiv 1802.00420).
    """

    source: Model
    attack: Attack = field(default_factory=lambda: MiFgsm(steps=20))

    @property
    def passes(self) -> int:
        return passes(self.attack)

    def __call__(self, model: Model, x: Images, y: Labels, threat: Threat) -> Images:
        return self.attempt(model, x, y, threat).delta

    def attempt(self, model: Model, x: Images, y: Labels, threat: Threat) -> Attempt:
        """A row whose perturbation is 0, for lack of a gradient in the source model, does not count as attacked."""
        delta, attacked, _ = attempt(self.attack, self.source, x, y, threat)
        return Attempt(delta, attacked & (delta != 0).flatten(1).any(1))
