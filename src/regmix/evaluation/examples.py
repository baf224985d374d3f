"""A few images for looking at: before and after an attack, and those that break first and last."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from regmix.attacks import Attack, Fgsm, Pgd, Square
from regmix.data import ImageSet, pick, spread
from regmix.evaluation.answers import gradient_fault
from regmix.evaluation.one_batch import perturb, predict
from regmix.evaluation.task import Task
from regmix.models import Answers
from regmix.runs.evaluations import Examples as StoredExamples
from regmix.runs.thumbnails import Thumbnails
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model

SHOWN = 8
"""How many attacked images are kept for the report."""
LONGER_SIDE = 64
"""Thumbnails are at most as high and as wide, in pixels."""


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


def shown_examples(model: Model, task: Task) -> StoredExamples | None:
    """A few test images before and after the last of the quick attacks, at the training's eps, for the report.

    None for a black box, whose queries are limited.
    """
    if isinstance(model, Answers):
        return None
    threat, images = task.experiment.threat, task.test.images
    batch = pick(images, spread(images.labels, SHOWN), task.device)
    suite = ((named.name, loaded.attack) for named, loaded in task.suite.items())
    quick: list[tuple[str, Attack]] = [(name, attack) for name, attack in suite if isinstance(attack, Fgsm | Pgd)]
    if not quick:
        blind = gradient_fault(model, batch.x[:2]) is not None
        quick = [("square", Square()) if blind else ("pgd-50", Pgd(50))]
    name, attack = quick[-1]
    return collect_examples(model, batch, threat, attack).stored(name, threat.eps)


def thumbnails(images: ImageSet, index: NDArray[np.int64], rows: list[int]) -> Thumbnails:
    """Small copies of some images: reduced by area averages where a side is longer than LONGER_SIDE.

    Args:
        index: positions of all images in the test split.
        rows: which of them.
    """
    few = images.subset(torch.tensor(rows, dtype=torch.int64)).pixels()
    scale = min(1.0, LONGER_SIDE / max(few.shape[2:]))
    if scale < 1 and rows:
        height, width = (max(1, round(scale * side)) for side in few.shape[2:])
        few = interpolate(few.float(), (height, width), mode="area").round().to(torch.uint8)
    return Thumbnails(index[rows], few.numpy())
