"""loss-surfaces.npz, the loss around a few test images, for the report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regmix.runs.evaluations import read_arrays, write_arrays
from regmix.types import UserError

SURFACES = "loss-surfaces.npz"


@dataclass(frozen=True)
class LossSurfaces:
    """The cross-entropy over a plane through each of a few test images [K].

    `loss[k, i, j]` is at `steps[i]` along a random direction and at `steps[j]` along the steepest one, both as long as
    the radius.
    """

    index: NDArray[np.int64]
    """Positions in the test split."""
    label: NDArray[np.int64]
    broken: NDArray[np.bool_]
    """Whether the attack of examples.npz breaks the image."""
    steps: NDArray[np.float64]
    """Positions [P] along both directions, in units of the radius."""
    loss: NDArray[np.float64]

    def write(self, folder: Path) -> None:
        """Writes compressed arrays, one per field."""
        write_arrays(folder / SURFACES, vars(self))

    @staticmethod
    def read(folder: Path) -> "LossSurfaces | None":
        """None if there are none. Raises UserError if the file is damaged."""
        path = folder / SURFACES
        if not path.is_file():
            return None
        few = LossSurfaces(**read_arrays(path, LossSurfaces.__dataclass_fields__))
        images, points = few.index.shape, few.steps.shape
        if any(each.shape != images for each in (few.label, few.broken)) or few.loss.shape != images + 2 * points:
            raise UserError(f"{path} is damaged: its arrays do not fit together; delete it")
        return few
