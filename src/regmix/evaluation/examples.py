"""A few images before and after an attack, for looking at."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regmix.attacks import Attack
from regmix.evaluation.one_batch import perturb, predict
from regmix.runs.evaluations import Examples as StoredExamples
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model


@dataclass(frozen=True)
class Examples:
    """A few images, their perturbations, and what the model predicts for both."""

    x: Float[Tensor, "examples channels height width"]
    delta: Float[Tensor, "examples channels height width"]
    label: Int[Tensor, "examples"]
    clean_prediction: Int[Tensor, "examples"]
    adversarial_prediction: Int[Tensor, "examples"]

    def stored(self, attack: str, eps: float) -> StoredExamples:
        """As a run directory keeps them: images in whole grey levels."""
        return StoredExamples(
            (self.x.numpy() * 255).round().astype("uint8"), self.delta.numpy(), self.label.numpy(),
            self.clean_prediction.numpy(), self.adversarial_prediction.numpy(), attack, eps,
        )  # fmt: skip


def collect_examples(model: Model, batch: Batch, threat: Threat, attack: Attack) -> Examples:
    """Attacks one batch and keeps the images, their perturbations and what the model predicts for both."""
    x, y = batch.x, batch.y
    with borrowed(model):
        adversarial = perturb(model, attack, x, y, threat)
        before, after = predict(model, x, y), predict(model, adversarial, y)
    parts: tuple[torch.Tensor, ...] = (x, adversarial - x, y, before, after)
    return Examples(*(part.cpu() for part in parts))
