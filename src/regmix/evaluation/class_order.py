"""Whether a model has the classes of the data in another order."""

import re
from collections.abc import Sequence

import numpy as np
import torch

from regmix.evaluation.outcomes import wilson
from regmix.types import Labels, UserError, few

SURE = 4.0
"""Standard deviations by which the accuracy in the other order must lie above the share of the most frequent class. For
random answers of 2 to 50 classes a gain of 20 points was then found in less than 1 of 1,000 simulations."""


def other_order(predicted: Labels, labels: Labels) -> tuple[float, dict[int, int]] | None:
    """The accuracy if every label stood for another output of the model, and which; None if no order is above chance.

    The order, a one-to-one assignment of labels to outputs, is found on one half of the images and counted on the
    other, and the reverse. So it takes at least two images of a class, and a model that answers at random, or always
    with one class, has no such order.
    """
    from scipy.optimize import linear_sum_assignment

    predicted, labels = predicted.cpu(), labels.cpu()
    if len(labels) < 2:
        return None
    size = int(torch.maximum(predicted, labels).max()) + 1

    def assigned(some: torch.Tensor) -> torch.Tensor:
        table = np.zeros((size, size), dtype=int)
        np.add.at(table, (labels[some].numpy(), predicted[some].numpy()), 1)
        return torch.from_numpy(linear_sum_assignment(table, maximize=True)[1])

    by_class = labels.argsort(stable=True)
    halves = by_class[0::2], by_class[1::2]
    right = sum(
        int((assigned(found)[labels[counted]] == predicted[counted]).sum())
        for found, counted in (halves, halves[::-1])
    )  # fmt: skip
    if wilson(right, len(labels), SURE)[0] <= int(labels.bincount().max()) / len(labels):
        return None
    order = assigned(by_class)
    return right / len(labels), {label: int(order[label]) for label in sorted({*labels.tolist()})}


def check_class_names(source: str, own: Sequence[str], classes: Sequence[str]) -> None:
    """Raises UserError if a model and the images name a class alike, up to case and punctuation, at other outputs.

    Names that are numbers are not compared: they may count from 0 or from 1.

    Args:
        source: what to call the model.
        own: the names of its outputs; empty if they are not known.
        classes: the names of the labels.
    """
    outputs, labels = _places(own), _places(classes)
    moved = [name for name, label in labels.items() if outputs.get(name, label) != label]
    if moved:
        label, output = labels[moved[0]], outputs[moved[0]]
        raise UserError(
            f"{source} has the classes in another order: output {output} is {own[output]!r}, which is class {label} of "
            f"the images ({few('moved:', [classes[labels[name]] for name in moved])}); rename the class folders so "
            "that they sort in the order of the outputs"
        )


def _places(names: Sequence[str]) -> dict[str, int]:
    """The place of every name that is there once and is no number."""
    plain = [" ".join(re.findall(r"\w+", name.casefold().replace("_", " "))) for name in names]
    return {name: place for place, name in enumerate(plain) if plain.count(name) == 1 and not name.isdecimal()}
