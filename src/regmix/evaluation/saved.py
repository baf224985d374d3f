"""Adversarial images as files beside an evaluation: written, read again, and shown to the model again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.data import ImageSet, batches
from regmix.evaluation.one_batch import predict
from regmix.evaluation.rounding import to_uint8
from regmix.evaluation.subject import EvaluationImages
from regmix.runs.adversarial import load_adversarial, save_adversarial, save_adversarial_table, save_adversarial_tensor
from regmix.runs.records import Rounded
from regmix.threats import Threat
from regmix.types import Images, Model

BATCH = 250


def saver(
    folder: Path, column: str, test: EvaluationImages, threat: Threat
) -> Callable[[Sequence[int], Images, Images], None]:
    """What saves the adversarial images of a column: called with positions, images and adversarial images."""

    def save(rows: Sequence[int], x: Images, adversarial: Images) -> None:
        save_adversarial(folder, column, test.index[list(rows)].tolist(), to_uint8(x, adversarial, threat))

    return save


def recheck(
    model: Model,
    folder: Path,
    column: str,
    test: EvaluationImages,
    broken: Bool[Tensor, "examples"],
    device: torch.device,
) -> Rounded:
    """Asks the model about the saved images of a column, and writes adversarial.npz and adversarial.pt beside them."""
    rows, images = load_adversarial(folder, column, test.index[broken].tolist())
    labels = test.images.labels[torch.searchsorted(test.index, torch.tensor(rows, dtype=torch.long))]
    stream = batches(ImageSet(images, labels, test.images.classes), BATCH, device)
    seen = [predict(model, batch.x, batch.y).cpu() for batch in stream]
    prediction = torch.cat(seen) if seen else labels
    save_adversarial_table(
        folder, column, images=images.numpy(), index=np.array(rows), label=labels.numpy(),
        prediction=prediction.numpy(),
    )  # fmt: skip
    whole = test.images.pixels().clone()
    whole[torch.searchsorted(test.index, torch.tensor(rows, dtype=torch.long))] = images.to(whole.dtype)
    save_adversarial_tensor(folder, column, whole)
    return Rounded(len(rows), int((prediction != labels).sum()))
