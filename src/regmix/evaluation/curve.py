"""From the smallest perturbation of every image to the accuracy at every radius."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regmix.attacks import CLEAN, Minimal, NamedAttack, explained, named_attacks
from regmix.evaluation.answers import explaining_gradients
from regmix.evaluation.one_batch import nearest, predict
from regmix.evaluation.outcomes import wilson
from regmix.evaluation.table import check_made_for
from regmix.runs.columns import Cost
from regmix.runs.distances import Curve, Distances, Quantile
from regmix.runs.evaluations import Outcomes, changed_source
from regmix.runs.records import Evaluation
from regmix.runtime.borrowed import borrowed
from regmix.threats import Threat
from regmix.types import Batch, Model, UserError, as_batch, check_values

POINTS = 40
"""How many radii the curve has beside those that are asked for."""
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def distances(
    model: Model,
    batches: Iterable[Batch | tuple[Tensor, Tensor]],
    threat: Threat,
    attacks: str | Iterable[str | Minimal] | Mapping[str, str | Minimal],
) -> dict[str, NDArray[np.float64]]:
    """The length of the smallest perturbation that each attack finds for every image, [N] by attack.

    0 where the image is misclassified without one, inf where none is found; in the norm of the threat, whose eps plays
    no part. Each is an upper bound of the true distance: the model was asked about every perturbation. A warning says
    for how many images without a perturbation the attack had no gradient to follow: their distance says nothing.

    Raises:
        UserError: an attack that does not look for the smallest perturbation or is not made for the norm, or what
            `evaluate` raises.
    """
    suite = {name: minimal(name, attack, threat) for name, attack in named_attacks(attacks).items()}
    found: dict[str, list[Tensor]] = {name: [] for name in suite}
    idle = dict.fromkeys(suite, 0)
    with borrowed(model):
        for given in batches:
            batch = as_batch(given)
            check_values(batch)
            x, y = batch.x.clamp(0, 1), batch.y
            with explained(model, batch):
                correct = predict(model, x, y) == y
            for name, attack in suite.items():
                length = torch.zeros(len(x), dtype=torch.float64, device=x.device)
                if correct.any():
                    with explaining_gradients(model, x, suite):
                        length[correct], missed = nearest(model, attack, x[correct], y[correct], threat)
                    idle[name] += int(missed.sum())
                found[name].append(length.cpu())
    if not all(found.values()):
        raise UserError("there is no example to evaluate")
    for name, count in idle.items():
        if count:
            warnings.warn(f"{name} has no gradient to follow at {count} images: inf says nothing there", stacklevel=2)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def minimal(name: str, attack: object, threat: Threat) -> Minimal:
    """The attack, if it looks for the smallest perturbation in this norm. Raises UserError if it does not."""
    if not isinstance(attack, Minimal):
        raise UserError(
            f"{name} attacks at a fixed radius; for a curve give attacks that look for the smallest perturbation: "
            "fmn, fab-t, deepfool, ddn, cw-l2, hop-skip-jump"
        )
    check_made_for(attack, threat)
    return attack


def check_curve(attacks: Sequence[NamedAttack], threat: Threat) -> None:
    """Raises UserError unless all of the attacks look for the smallest perturbation in this norm."""
    for named in attacks:
        minimal(named.name, named.attack, threat)


def smallest(
    found: Mapping[str, NDArray[np.float64]], survives: Mapping[str, tuple[float, NDArray[np.bool_]]]
) -> NDArray[np.float64]:
    """Per image the smallest distance of all attacks, [N].

    Args:
        found: distances by attack.
        survives: by column, its radius and which images survive there; a broken one has at most that distance.
    """
    bounds = [np.where(alive, math.inf, eps) for eps, alive in survives.values()]
    least: NDArray[np.float64] = np.minimum.reduce([*found.values(), *bounds])
    return least


def curve(least: NDArray[np.float64], rests_on: Sequence[str], radii: Iterable[float] = ()) -> Curve:
    """The accuracy at 40 radii up to the largest distance, and at those given.

    An image counts as correct at eps if its distance is above eps. Quantiles are the smallest distances within which
    that share of the images is misclassified; their intervals are those of order statistics (scipy's quantile_test).
    """
    finite = least[np.isfinite(least)]
    end = max([*finite.tolist(), *radii, 1e-12])
    eps = sorted({*np.linspace(0, end, POINTS).tolist(), *radii})
    correct = [int((least > radius).sum()) for radius in eps]
    intervals = [wilson(count, len(least)) for count in correct]
    return Curve(
        [*rests_on], eps, [count / len(least) for count in correct], [low for low, _ in intervals],
        [high for _, high in intervals], [_quantile(least, share) for share in SHARES], len(least) - len(finite),
    )  # fmt: skip


@dataclass(frozen=True)
class Smallest:
    """What attacks that look for the smallest perturbation have found, by attack; see `Curve`."""

    distances: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    without_gradient: dict[str, int] = field(default_factory=dict)


def merged_curve(folder: Path, new: Smallest, whole: Evaluation, outcomes: Outcomes) -> Curve | None:
    """The curve of a subject from all of its distances and columns; None if no attack has looked for distances.

    Args:
        folder: of the evaluation, in which no other process writes; its distances.csv is read, and written with the
            new distances.
        new: what this evaluation has found.
        whole: the evaluation with all columns, new and earlier ones.
        outcomes: which images survive them.
    """
    distances = Distances.read(folder, outcomes.index).merged(Distances(outcomes.index, new.distances))
    if not distances.found:
        return None
    if new.distances:
        distances.write(folder)
    columns = {name: column for name, column in whole.columns.items() if not changed_source(column)}
    bounds = {name: (column.eps, outcomes.survives[name]) for name, column in columns.items()}
    names = [*distances.found, *(name for name in bounds if name != CLEAN)]
    drawn = curve(smallest(distances.found, bounds), names, {column.eps for column in columns.values()})
    before = whole.curve or drawn
    return replace(
        drawn, costs={**before.costs, **new.costs},
        without_gradient={**before.without_gradient, **new.without_gradient},
    )  # fmt: skip


def curve_text(drawn: Curve) -> str:
    """The median distance in words, and what it rests on."""
    median = next(quantile for quantile in drawn.quantiles if quantile.share == 0.5)
    bounds = (median.low, median.distance, median.high)
    low, middle, high = ("not reached" if bound is None else f"{bound:.4g}" for bound in bounds)
    by = ", ".join(drawn.rests_on)
    return f"smallest perturbation: median at most {middle} (95 %: {low} to {high}), by {by}{drawn.not_found()}"


def _quantile(least: NDArray[np.float64], share: float) -> Quantile:
    from scipy.stats import quantile_test

    interval = quantile_test(least, p=share).confidence_interval(0.95)
    # Where the images are too few for a bound, there is none: NaN.
    low = 0.0 if math.isnan(interval.low) else float(interval.low)
    return Quantile(
        share, _reached(float(np.quantile(least, share, method="inverted_cdf"))), _reached(low),
        _reached(float(interval.high)),
    )  # fmt: skip


def _reached(distance: float) -> float | None:
    return distance if math.isfinite(distance) else None
