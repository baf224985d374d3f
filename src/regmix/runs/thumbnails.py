"""Which images break first and last, and small copies of them beside the evaluation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regmix.runs.evaluations import Outcomes, read_arrays, write_arrays
from regmix.runs.records import Evaluation
from regmix.types import UserError

THUMBNAILS = "thumbnails.npz"
EXTREMES = 12
"""How many images that break first, and last, are shown."""


@dataclass(frozen=True)
class Breaking:
    """When each image [N] breaks."""

    eps: NDArray[np.float64]
    """The smallest evaluated radius at which an attack breaks it, or the length of a smaller perturbation that was
    found; 0: misclassified without an attack; inf: none."""
    attacks: NDArray[np.int64]
    """How many of the evaluation's attacks break it, over all radii."""
    first: list[int]
    """Rows of the images that are classified correctly without an attack and break first: by the smallest radius, then
    by the number of attacks, then by position."""
    last: list[int]
    """Rows of the images that break last, the last one first."""


def breaking(
    evaluation: Evaluation, outcomes: Outcomes, distances: Mapping[str, NDArray[np.float64]] | None = None
) -> Breaking:
    """When each image of an evaluation breaks, and which ones break first and last.

    Args:
        distances: of the smallest perturbations by attack, see `Distances.found`.
    """
    eps = np.full(len(outcomes.label), math.inf)
    attacks = np.zeros(len(outcomes.label), dtype=np.int64)
    for name, column in evaluation.columns.items():
        if name in outcomes.survives:
            broken = ~outcomes.survives[name]
            eps[broken] = np.minimum(eps[broken], column.eps)
            attacks += broken & (column.eps > 0)
    for lengths in (distances or {}).values():
        eps = np.minimum(eps, lengths)
        attacks += (lengths > 0) & np.isfinite(lengths)
    order = [int(row) for row in np.lexsort((outcomes.index, -attacks, eps)) if eps[row] > 0]
    return Breaking(eps, attacks, [row for row in order if np.isfinite(eps[row])][:EXTREMES], order[::-1][:EXTREMES])


@dataclass(frozen=True)
class Thumbnails:
    """thumbnails.npz: small copies uint8 [K, C, h, w] of test images at the positions `index` [K]."""

    index: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    files: NDArray[np.str_]
    """The files that hold the images, relative to the data's folder; empty where there are none."""

    def write(self, folder: Path) -> None:
        """Writes compressed arrays, one per field."""
        write_arrays(folder / THUMBNAILS, vars(self))

    @staticmethod
    def read(folder: Path) -> "Thumbnails | None":
        """None if there are none. Raises UserError if the file is damaged."""
        path = folder / THUMBNAILS
        if not path.is_file():
            return None
        arrays = read_arrays(path, ("index", "pixels"), optional=("files",))
        few = Thumbnails(**{"files": np.full(len(arrays["index"]), ""), **arrays})
        images = few.pixels.shape[:1]
        if few.pixels.ndim != 4 or few.pixels.dtype != np.uint8 or not few.index.shape == few.files.shape == images:
            raise UserError(f"{path} is damaged: its arrays do not have the same number of images; delete it")
        return few
