"""distances.csv, the smallest perturbation that was found for every image, and the curve that follows from it."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regmix.runs.columns import Cost
from regmix.runtime.files import read_text, write_text
from regmix.types import UserError

DISTANCES = "distances.csv"


@dataclass(frozen=True)
class Quantile:
    """The distance within which this share of the images is misclassified, with its 95 % interval.

    None stands for a distance that was not reached: no perturbation was found for so many images.
    """

    share: float
    distance: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """Accuracy against eps, from the smallest perturbation found for every image; an upper bound at every radius."""

    rests_on: list[str]
    """The attacks that looked for the smallest perturbation, and the columns whose broken images count as well."""
    eps: list[float]
    """Radii in pixel units of [0, 1], from 0 on."""
    accuracy: list[float]
    low: list[float]
    """Of the 95 % Wilson interval at each radius."""
    high: list[float]
    quantiles: list[Quantile]
    """The median among them; an image that is misclassified without a perturbation has the distance 0."""
    unbroken: int
    """Images for which no perturbation was found."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """What each attack took that looked for the smallest perturbation; without those of an older version."""
    without_gradient: dict[str, int] = field(default_factory=dict)
    """By attack, for how many images it found no perturbation and had no gradient to follow: no sign of robustness."""

    def not_found(self) -> str:
        """A clause about the images without a perturbation; empty if every image has one."""
        if not self.unbroken:
            return ""
        told = [f"{name} at {count} images" for name, count in self.without_gradient.items() if count]
        why = f" (without a gradient to follow, no sign of robustness: {', '.join(told)})" if told else ""
        return f"; no perturbation found for {self.unbroken} images{why}"


@dataclass(frozen=True)
class Distances:
    """The length of the smallest perturbation that each attack has found, [N] by attack.

    0 where the image is misclassified without one, inf where none was found.
    """

    index: NDArray[np.int64]
    """Positions in the test split."""
    found: dict[str, NDArray[np.float64]]

    def merged(self, newer: "Distances") -> "Distances":
        """The attacks of both; of those with the same name the newer one."""
        assert np.array_equal(self.index, newer.index), "distances of different examples"
        return Distances(self.index, {**self.found, **newer.found})

    def write(self, folder: Path) -> None:
        """Writes one row per image, with as many digits as the numbers have."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", *self.found])
        for row in zip(self.index.tolist(), *(values.tolist() for values in self.found.values()), strict=True):
            writer.writerow(row)
        write_text(folder / DISTANCES, text.getvalue())

    @staticmethod
    def read(folder: Path, index: NDArray[np.int64]) -> "Distances":
        """The distances of these images; none if there is no file. Raises UserError if the file is damaged."""
        path = folder / DISTANCES
        if not path.is_file():
            return Distances(index, {})
        try:
            header, *rows = list(csv.reader(read_text(path).splitlines()))
            table = np.array(rows, dtype=np.float64).reshape(len(rows), len(header))
            if not (table >= 0).all():  # written so that NaN fails
                raise ValueError("a distance is not a number, or below 0")
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path} is damaged: {error}; delete it and evaluate the run again") from None
        if header[0] != "index" or not np.array_equal(table[:, 0], index):
            raise UserError(f"{path} is about other images than its folder; delete it and evaluate the run again")
        return Distances(index, {name: table[:, place] for place, name in enumerate(header) if place})
