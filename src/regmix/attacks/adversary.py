"""An attack bound to a model and a threat, called as torchattacks' attacks are: (images, labels) to images."""

import torch

from regmix.attacks.base import Attack
from regmix.attacks.diagnosis import IN_PLACE, explained
from regmix.attacks.names import named_attacks
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat, check_threat
from regmix.types import Images, Labels, Model, UserError, as_batch, check_values, require


class Adversary:
    """Adversarial images against a model from anywhere: adversary(images, labels) = clip(x + attack(model, x, y)).

    The model is attacked in evaluation mode and without parameter gradients; its mode and flags are restored. It must
    normalise inside, because images lie in [0, 1] and eps is in pixel units. All images are attacked, also those that
    the model misclassifies without an attack. To measure robust accuracy, use `regmix.evaluate`, which does not trust
    the attack.
    """

    def __init__(self, model: Model, attack: str | Attack, threat: Threat) -> None:
        """attack: a name such as "pgd-50", or an attack such as Pgd(steps=50).

        Raises:
            UserError: an unknown attack, or one that is not made for the threat.
        """
        check_threat(threat)
        suite = named_attacks([attack])
        if len(suite) != 1:
            raise UserError(f"{attack!r} is no attack; give a name such as 'pgd-50'")
        ((self.name, self.attack),) = suite.items()
        getattr(self.attack, "check", lambda _: None)(threat)
        self.model, self.threat = model, threat

    def __call__(self, images: Images, labels: Labels) -> Images:
        """Adversarial images [B, C, H, W] in [0, 1], without a graph, on the device of the images.

        Raises:
            UserError: images outside [0, 1], labels of another shape or type than Batch has, a model that returns no
                logits or changes its images in place, or perturbations that are not finite.
        """
        batch = as_batch((images, labels))
        check_values(batch)
        with torch.inference_mode(False):  # other trainers validate in it, and it knows no gradients
            x, y = batch.x.detach().clamp(0, 1), batch.y.clone()
            version = x._version
            with borrowed(self.model), explained(self.model, batch):
                delta = self.attack(self.model, x, y, self.threat).detach()
        require(x._version == version, IN_PLACE)
        if not bool(delta.isfinite().all()):
            raise UserError(
                f"{self.name} made perturbations that are not finite, because the model's gradients are not finite"
            )
        return (x + delta).clamp(0, 1)

    def __repr__(self) -> str:
        return f"Adversary({self.name}, {self.threat})"
