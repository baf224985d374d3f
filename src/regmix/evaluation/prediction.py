"""What a trained model says about image files, and the radius at which an attack changes its answer."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regmix.attacks import Apgd
from regmix.data.single import read_image
from regmix.evaluation.one_batch import attacked
from regmix.runs.load import Trained
from regmix.threats import Threat
from regmix.types import UserError


class Prediction(NamedTuple):
    """A model's answer to an image."""

    file: Path
    label: str
    """Name of the predicted class."""
    probability: float
    """Softmax of the logits at that class, in [0, 1]. It is not calibrated."""
    breaks_at: float | None = None
    """The smallest of the radii at which the attack found an image of another class; None: at none of them."""


def predictions(
    trained: Trained,
    files: Sequence[Path],
    device: torch.device,
    batch_size: int,
    warn: Callable[[str], None],
    threats: Sequence[Threat] = (),
) -> Iterator[Prediction]:
    """The model's answers to image files, in their order. Files that cannot be read are left out.

    Args:
        device: where the model computes; it is moved there.
        warn: called with a line about each file that cannot be read.
        threats: threat sets of one norm with rising radii. Each image is attacked with APGD on cross-entropy within
            one after the other, until its class changes. A stronger attack may need a smaller radius.
    """
    model = trained.model.to(device)
    for first in range(0, len(files), batch_size):
        read: list[tuple[Path, Tensor]] = []
        for file in files[first : first + batch_size]:
            try:
                read.append((file, read_image(file, trained.shape)))
            except UserError as error:
                warn(f"left out: {error}")
        if read:
            x = torch.stack([pixels for _, pixels in read]).to(device).float() / 255
            yield from _batch(model, trained.classes, [file for file, _ in read], x, threats)


def _batch(
    model: nn.Module, classes: Sequence[str], files: Sequence[Path], x: Tensor, threats: Sequence[Threat]
) -> Iterator[Prediction]:
    with torch.no_grad():
        probabilities = model(x).float().softmax(1)
    best, labels = probabilities.max(1)
    breaks = torch.full((len(x),), torch.inf)
    for threat in threats:
        left = breaks.isinf().nonzero().flatten()
        if len(left):
            broken = attacked(model, Apgd(), x[left], labels[left], threat).broken
            breaks[left[broken.cpu()]] = threat.eps
    for file, label, probability, eps in zip(files, labels.tolist(), best.tolist(), breaks.tolist(), strict=True):
        yield Prediction(file, classes[label], probability, None if eps == torch.inf else eps)
