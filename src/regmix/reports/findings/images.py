"""Findings about the images: too few of them, or validation images that are unlike those of the test."""

import math

from regmix.evaluation import CLEAN
from regmix.reports.classes import Classes
from regmix.reports.findings.case import Case, Finding, Number, difference
from regmix.reports.findings.classes import HALF, upper_end
from regmix.reports.statistics import Share, share

WIDE = 0.05
"""Half the width of an interval above which an accuracy tells little: published methods lie within 5 points."""
CLAIM = 0.0138
"""The largest improvement that the paper of RegMix claims; what a comparison should be able to see."""
UNLIKE = 0.05
"""By how much the validation accuracy must exceed that on the test images. As the best of all epochs it is a little too
high in sound runs."""


def few_test_images(case: Case) -> Finding | None:
    """So few test images that the interval is wider than what methods differ by, although there are more.

    Exact: the 95 % interval of the robust accuracy reaches more than 5 points to either side; or, with another run
    beside this one on the same images, the paired interval includes zero and reaches more than 1.38 points, the
    largest improvement that the paper of RegMix claims.
    """
    evaluation, robust = case.evaluation, case.robust
    if evaluation is None or robust is None or evaluation.subject.sample.count >= evaluation.subject.sample.of:
        return None
    count, of = evaluation.subject.sample.count, evaluation.subject.sample.of
    half, target, question = (robust.high - robust.low) / 2, WIDE, "how robust the model is"
    number = Number.of("robust accuracy", robust)
    if half <= WIDE:
        column = case.subject.column_name(case.subject.checkpoint or "") or ""
        pairs = [(peer, pair) for peer in case.peers if (pair := case.against(peer, column)) is not None]
        open_ones = [(peer, pair) for peer, pair in pairs if not pair.beyond_noise]
        if not open_ones:
            return None
        peer, pair = max(open_ones, key=lambda each: each[1].high - each[1].low)
        half, target, question = (pair.high - pair.low) / 2, CLAIM, f"whether it is more robust than {peer.label}"
        number = Number(f"robust accuracy minus that of {peer.label}", pair.difference, pair.low, pair.high)
        if half <= CLAIM:
            return None
    needed = min(of, math.ceil(count * (half / target) ** 2 / 100) * 100)
    columns = [column for column in evaluation.columns.values() if column.eps > 0 and column.source is None]
    attacks = dict.fromkeys(column.attack for column in columns)  # not those that need a run or a file, too
    return Finding(
        "too few test images",
        f"{count} of {of:,} test images do not tell {question}.",
        [number, Number("half the width of the interval", half), Number("test images", count)],
        ["the evaluation was cut down with --examples"],
        case.evaluate("--attacks", ",".join([CLEAN, *attacks]), "--eps", robust.eps_text, "--examples", str(needed)),
        "half the width of the interval",
    )


def easier_validation(case: Case) -> Finding | None:
    """The validation images are far easier than the test images, so the weights were chosen on the wrong ones.

    Test: the lower end of the 95 % interval of validation minus test accuracy without an attack, of the judged weights,
    exceeds five points. Frames of one video, or crops of one photograph, on both sides of a split at random do this.
    """
    evaluation, clean, held_out = case.evaluation, case.clean, _validated(case)
    if evaluation is None or evaluation.elsewhere or clean is None or held_out is None:
        return None
    gap, low, high = difference(held_out, share(clean.correct, evaluation.examples))
    if low <= UNLIKE:
        return None
    return Finding(
        "validation easier than the test",
        f"Without an attack the weights have {100 * gap:.1f} points more accuracy on the validation images than on the "
        "test images, so the validation chose between epochs by the wrong images.",
        [
            Number("validation minus test accuracy, without an attack", gap, low, high),
            Number.of("validation accuracy without an attack", held_out),
            Number.of("test accuracy without an attack", clean),
        ],
        [
            "images of one object or scene (such as frames of a video) are among both the training and the validation "
            "images",
            "the test images were taken elsewhere, or are labelled otherwise",
        ],
        case.train(),
        "validation minus test accuracy, once val/ holds images of other objects than train/",
    )


def _validated(case: Case) -> Share | None:
    """The accuracy of the judged weights on the validation images, without an attack."""
    last, best = len(case.run.epochs), "averaged_clean" if case.run.best_is_average else CLEAN
    known = {"best": (best, case.run.best_epoch), "last": (CLEAN, last), "averaged": ("averaged_clean", last)}
    name, epoch = known.get(case.subject.checkpoint or "", (CLEAN, None))
    row = next((row for row in case.validated if row.epoch == epoch), None)
    return case.validation(row, name) if row is not None else None


def unjudged(classes: Classes | None) -> str | None:
    """Says that the images per class are too few for `weak_class` to find anything; None where they are not.

    They are if even a class without a surviving image would not stand out from the mean of the others.
    """
    if classes is None or len(classes.rows) < 3:
        return None
    counts = [row.images for row in classes.rows]
    total = sum(row.robust.accuracy for row in classes.rows)
    if any(
        upper_end(0, row.images, len(counts)) < HALF * (total - row.robust.accuracy) / (len(counts) - 1)
        for row in classes.rows
    ):
        return None
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return f"{each} test images per class are too few to judge single classes at this robust accuracy"
