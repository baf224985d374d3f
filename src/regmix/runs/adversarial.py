"""Adversarial images as files in the folder of an evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regmix.runs.evaluations import write_arrays
from regmix.runtime.files import write_atomically

ADVERSARIAL = "adversarial"


def save_adversarial(evaluation: Path, column: str, rows: Sequence[int], images: Tensor) -> None:
    """Writes adversarial images, uint8 [B, C, H, W], as PNG files named by their positions in the test split."""
    from PIL import Image

    folder = _folder(evaluation, column)
    folder.mkdir(parents=True, exist_ok=True)
    for row, image in zip(rows, images.cpu().permute(0, 2, 3, 1).numpy(), strict=True):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        write_atomically(folder / f"{row:06d}.png", lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]


def load_adversarial(evaluation: Path, column: str, broken: Sequence[int]) -> tuple[list[int], Tensor]:
    """The positions and images, uint8 [B, C, H, W], in the PNG files of a column.

    Files of rows that are not among the broken ones are left from an earlier attack, and are deleted.
    """
    from PIL import Image

    rows, images, expected = [], [], set(broken)
    for path in sorted(_folder(evaluation, column).glob("*.png")):
        if int(path.stem) not in expected:
            path.unlink()
            continue
        pixels = np.array(Image.open(path))
        rows.append(int(path.stem))
        images.append(torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1))
    return rows, torch.stack(images) if images else torch.zeros(0, 1, 1, 1, dtype=torch.uint8)


def save_adversarial_table(evaluation: Path, column: str, **arrays: np.ndarray[Any, Any]) -> None:
    """Writes adversarial.npz beside the PNG files of a column."""
    folder = _folder(evaluation, column)
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / "adversarial.npz", arrays)


def save_adversarial_tensor(evaluation: Path, column: str, images: Tensor) -> None:
    """Writes adversarial.pt: float32 images of all evaluated test images, as AutoAttack's evaluation script saves them.

    images: uint8 [N, C, H, W], the test image itself where it was not broken.
    """
    content = {"adv_complete": images.float() / 255}
    write_atomically(_folder(evaluation, column) / "adversarial.pt", lambda file: torch.save(content, file))


def _folder(evaluation: Path, column: str) -> Path:
    return evaluation / ADVERSARIAL / column.replace("/", "_").replace(":", "-")
