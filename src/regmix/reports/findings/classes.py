"""Findings about classes, from evaluations on test images."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from regmix.evaluation import wilson
from regmix.reports.classes import per_class
from regmix.reports.findings.case import Case, Finding, Number
from regmix.reports.words import percent

HALF = 0.5
"""A class carries the loss if its robust accuracy is below this part of the mean of the others."""
NAMED = 5
"""How many weak classes are named."""


def weak_class(case: Case) -> Finding | None:
    """One class is less than half as robust as the mean of the others: it carries the loss.

    Test: the upper end of its Wilson interval at 95 %, corrected for the number of classes (Bonferroni), is below half
    of the mean of the others. Compare arXiv 2105.14240 on classes in adversarial training.
    """
    classes = per_class(case.subject)
    if classes is None or not case.is_adversarial or len(classes.rows) < 3 or case.answers_one_class:
        return None
    worst = min(classes.rows, key=lambda row: row.robust.accuracy)
    others = float(np.mean([row.robust.accuracy for row in classes.rows if row is not worst]))
    high = upper_end(round(worst.robust.accuracy * worst.images), worst.images, len(classes.rows))
    if high >= HALF * others:
        return None
    clean = float(np.mean([row.clean.accuracy for row in classes.rows if row is not worst]))
    confused = classes.confusion(worst.name)
    label_fault = worst.clean.high < HALF * clean
    causes = [
        "the labels of this class are wrong, mixed with another's, or few in the training images",
        "this class is harder than the others at this ε",
    ]
    return Finding(
        "a weak class",
        f'Class "{worst.name}" has {percent(worst.robust.accuracy)} robust accuracy, the others {percent(others)} in '
        "the mean"
        + (
            f'; it is mostly taken for "{confused.taken_for}" ({confused.images} of {confused.of}).'
            if confused
            else "."
        ),
        [
            Number.of(f'robust accuracy of "{worst.name}"', worst.robust),
            Number(f"upper end of its interval, corrected for {len(classes.rows)} classes", high),
            Number("mean robust accuracy of the other classes", others),
            Number.of(f'accuracy of "{worst.name}" without an attack', worst.clean),
            *([Number(f'share taken for "{confused.taken_for}"', confused.images / confused.of)] if confused else []),
        ],
        causes if label_fault else causes[::-1],
        case.train() if label_fault else case.train("--epochs", str(2 * int(case.setting("epochs")))),
        f'robust accuracy of "{worst.name}"' + (", once its training labels are mended" if label_fault else ""),
    )


def weak_classes(case: Case) -> Finding | None:
    """Too many classes have no image that survives: with few images per class, none of them stands out alone.

    Test: their number is above the 97.5 % quantile of what chance gives if every class is half as robust as the mean
    (Poisson binomial distribution).
    """
    classes = per_class(case.subject)
    if classes is None or not case.is_adversarial or case.answers_one_class:
        return None
    lost = [row for row in classes.rows if row.robust.accuracy == 0]
    mean = float(np.mean([row.robust.accuracy for row in classes.rows]))
    chances = [(1 - HALF * mean) ** row.images for row in classes.rows]
    limit = _quantile(chances)
    if len(lost) <= limit:
        return None
    clean = sum(row.clean.accuracy == 0 for row in lost)
    worst = ", ".join(f'"{row.name}"' for row in sorted(lost, key=lambda row: row.clean.accuracy)[:NAMED])
    return Finding(
        "weak classes",
        f"{len(lost)} of {len(classes.rows)} classes have no test image that survives the attack, {clean} of them none "
        f"that is classified correctly without it: {worst}{' and others' if len(lost) > NAMED else ''}.",
        [
            Number("classes without an image that survives", len(lost)),
            Number("such classes that chance leaves at most (97.5 %), were each half as robust as the mean", limit),
            Number("mean robust accuracy of the classes", mean),
        ],
        [
            "at this ε the model gives these classes up for others that look like them",
            "they have few training images, or labels that are wrong or mixed",
            "the training was too short, or the network is too small for so many classes",
        ],
        case.train("--epochs", str(2 * int(case.setting("epochs")))),
        "classes without an image that survives",
    )


def upper_end(count: int, images: int, classes: int) -> float:
    """The upper end of the Wilson interval of count of images at 95 %, corrected for the number of classes."""
    return wilson(count, images, float(norm.ppf(1 - 0.025 / classes)))[1]


def _quantile(chances: Sequence[float]) -> int:
    """The smallest number that at most 2.5 % of draws exceed, where each of these events happens by its chance."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return int(np.searchsorted(distribution.cumsum(), 0.975))
