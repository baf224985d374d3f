"""What a trained model says about image files, and the radius at which an attack changes its answer."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regmix.attacks import Apgd
from regmix.data.single import read_image
from regmix.evaluation.one_batch import attacked
from regmix.evaluation.preflight import preflight
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
    """The smallest of the radii at which an attack found an image of another class; None: at none of them."""
    attacked: bool = True
    """False where no attack found a gradient at the largest radius, so that breaks_at says nothing."""


ATTACKS = (Apgd("ce"), Apgd("dlr"))
"""The second follows the logits where the cross-entropy is too flat for a gradient."""
LOOKED_AT = 20
"""How many images tell whether the model can be asked at all."""


def predictions(
    trained: Trained,
    files: Sequence[Path],
    device: torch.device,
    batch_size: int,
    warn: Callable[[str], None],
    threats: Sequence[Threat] = (),
) -> Iterator[Prediction]:
    """The model's answers to image files, in their order.

    Files that cannot be read, or for which the model's logits are not finite, are left out.

    Args:
        device: where the model computes; it is moved there.
        warn: called with a line about each file that is left out, and with what makes the answers doubtful.
        threats: threat sets of one norm with rising radii. Each image is attacked with APGD on cross-entropy, then on
            the difference of logits ratio, within one after the other, until its class changes. A stronger attack may
            need a smaller radius.

    Raises:
        UserError: what `preflight` raises.
    """
    model, checked = trained.model.to(device), False
    for first in range(0, len(files), batch_size):
        read = [*_read(files[first : first + batch_size], trained.shape, warn)]
        if not read:
            continue
        x = torch.stack([pixels for _, pixels in read]).to(device).float() / 255
        with torch.no_grad():
            logits = model(x).float()
        finite = logits.isfinite().all(1).cpu()
        for row in (~finite).nonzero()[:, 0].tolist():
            warn(f"left out: the model's logits for {read[row][0]} are not finite")
        rows = finite.nonzero()[:, 0].tolist()
        if not rows:
            continue
        x, logits = x[rows], logits[rows]
        if not checked:
            few, suite = x[:LOOKED_AT], {f"apgd-{attack.loss}": attack for attack in ATTACKS if threats}
            for line in preflight(model, few, logits[:LOOKED_AT].argmax(1), len(trained.classes), suite):
                warn(line)
            checked = True
        yield from _batch(model, trained.classes, [read[row][0] for row in rows], x, logits, threats)


def _read(
    files: Sequence[Path], shape: tuple[int, int, int], warn: Callable[[str], None]
) -> Iterator[tuple[Path, Tensor]]:
    """The pixels of the files that can be read."""
    for file in files:
        try:
            yield file, read_image(file, shape)
        except UserError as error:
            warn(f"left out: {error}")


def _batch(
    model: nn.Module,
    classes: Sequence[str],
    files: Sequence[Path],
    x: Tensor,
    logits: Tensor,
    threats: Sequence[Threat],
) -> Iterator[Prediction]:
    best, labels = logits.softmax(1).max(1)
    breaks: list[float | None] = [None] * len(x)
    reached = [True] * len(x)
    for threat in threats:
        for number, attack in enumerate(ATTACKS):
            if rows := [row for row, eps in enumerate(breaks) if eps is None]:
                found = attacked(model, attack, x[rows], labels[rows], threat)
                for row, broken, idle in zip(rows, found.broken.tolist(), found.not_attacked.tolist(), strict=True):
                    breaks[row] = threat.eps if broken else None
                    reached[row] = not idle or (number > 0 and reached[row])
    yield from map(Prediction, files, (classes[label] for label in labels.tolist()), best.tolist(), breaks, reached)
