"""What the earlier evaluations of a checkpoint say about a new one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from regmix.attacks import CLEAN
from regmix.data import changes
from regmix.runs.evaluations import Stored
from regmix.runs.records import Source
from regmix.types import Fingerprint, UserError

FLIPPED = 0.01
"""Rounding on another device may change the class of fewer images than this share."""


def other_images(before: Sequence[Stored], split: Fingerprint) -> str:
    """A line if the test split is not that of the latest evaluation; else empty."""
    if not before or not (text := changes(before[-1].evaluation.subject.data, split)):
        return ""
    return (
        f"the test images are not those of the evaluation of {before[-1].evaluation.made[:10]}: {text}; "
        "this evaluation is kept beside it"
    )


def joined(before: Sequence[Stored], folder: Path) -> Stored | None:
    """The earlier evaluation in this folder, which new columns join; None if there is none."""
    return next((stored for stored in before if stored.folder == folder), None)


def survived_at(eps: float, earlier: Stored | None) -> dict[str, Bool[Tensor, "examples"]]:
    """Which images survived the attacks of an earlier evaluation at a radius, by attack."""
    if earlier is None:
        return {}
    survives, columns = earlier.outcomes().survives, earlier.evaluation.columns.items()
    return {c.attack: torch.from_numpy(survives[name]) for name, c in columns if c.eps == eps}


def check_sources(sources: Mapping[str, Source | None], earlier: Stored) -> None:
    """Raises UserError if a new column would replace one of the same name whose examples come from somewhere else.

    Columns are called after the folder or file alone. A source that was trained further, or moved, is the same one.
    """
    for name, source in sources.items():
        column = earlier.evaluation.columns.get(name)
        known = column.source if column is not None else None
        if source is None or known is None or known.comes_from(source) or known.path == source.path:
            continue
        raise UserError(
            f"{name} is there already, with examples from {known.path}; those of {source.path} would replace it under "
            "the same name: rename one of the two"
        )


def check_same_model(clean: Bool[Tensor, "examples"], batch_size: int, earlier: Stored) -> None:
    """Raises UserError if the model answers otherwise than in the earlier evaluation that the new columns join.

    Weights, settings and code are compared by their digests; this finds what a model reads besides them. It is not for
    random models, whose answers may change, and compares batches of one size only.
    """
    column = earlier.evaluation.columns.get(CLEAN)
    if column is None or column.batch_size != batch_size:
        return
    others = int((torch.from_numpy(earlier.outcomes().survives[CLEAN]) != clean).sum())
    if others > 1 + FLIPPED * len(clean):
        raise UserError(
            f"{others} of {len(clean)} images are right or wrong otherwise than on {earlier.evaluation.made[:10]}, "
            f"although the weights, the settings and the code are the same. What else does the model read? If that has "
            f"changed, {earlier.folder} is about another model: move it away"
        )
