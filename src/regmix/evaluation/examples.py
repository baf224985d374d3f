"""A few images for looking at: before and after an attack, the loss around them, those that break first and last."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from regmix.attacks import Attack, Fgsm, Pgd, Square
from regmix.data import ImageSet, pick, spread
from regmix.evaluation.answers import gradient_fault
from regmix.evaluation.one_batch import perturb, predict
from regmix.evaluation.planes import image_planes
from regmix.evaluation.task import Task
from regmix.models import Answers
from regmix.runs.evaluations import Examples as StoredExamples
from regmix.runs.loss_surface import LossSurfaces
from regmix.runs.thumbnails import Thumbnails
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model, UserError

SHOWN = 8
"""How many attacked images are kept for the report."""
LONGER_SIDE = 64
"""Thumbnails are at most as high and as wide, in pixels."""
POINTS = 15
"""Grid points per direction of the loss around an image."""


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


def write_loss_surfaces(folder: Path, model: Model, task: Task, shown: StoredExamples | None) -> None:
    """Measures the loss around the first shown image that the attack breaks, and the first that it does not break.

    Writes nothing where no image is classified correctly, or where the loss around an image cannot be measured: the
    model is random, or has no gradients.
    """
    if shown is None or not isinstance(model, nn.Module):
        return
    broken = shown.adversarial_prediction != shown.label
    right = shown.clean_prediction == shown.label
    chosen = [int(rows[0]) for rows in ((right & broken).nonzero()[0], (right & ~broken).nonzero()[0]) if len(rows)]
    if not chosen:
        return
    rows = spread(task.test.images.labels, SHOWN)[chosen]
    batch = pick(task.test.images, rows, task.device)
    try:
        threat, at_once = task.experiment.threat, task.questions.batch_size
        plane = image_planes(model, batch.x, batch.y, threat, points=POINTS, batch_size=at_once)
    except UserError:
        return
    index = task.test.index[rows].numpy()
    LossSurfaces(index, shown.label[chosen], broken[chosen], plane.steps.numpy(), plane.loss.numpy()).write(folder)


def thumbnails(images: ImageSet, index: NDArray[np.int64], rows: list[int]) -> Thumbnails:
    """Small copies of some images: reduced by area averages where a side is longer than LONGER_SIDE.

    Args:
        index: positions of all images in the test split.
        rows: which of them.
    """
    chosen = images.subset(torch.tensor(rows, dtype=torch.int64))
    few = chosen.pixels()
    scale = min(1.0, LONGER_SIDE / max(few.shape[2:]))
    if scale < 1 and rows:
        height, width = (max(1, round(scale * side)) for side in few.shape[2:])
        few = interpolate(few.float(), (height, width), mode="area").round().to(torch.uint8)
    return Thumbnails(index[rows], few.numpy(), np.array(chosen.files or [""] * len(rows), dtype=np.str_))
