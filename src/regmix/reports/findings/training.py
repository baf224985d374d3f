"""Findings from the training's own records: metrics.jsonl, config.json and result.json."""

from regmix.reports.findings.case import Case, Finding, Number, difference
from regmix.reports.statistics import Share
from regmix.reports.words import percent

FEW_EPOCHS = 5
"""The shortest published schedule of a fast method has 15 epochs (arXiv 2001.03994)."""
FULL_WIDTH = {"small_cnn": 32, "resnet": 64, "preact_resnet": 64}
NARROW = 8
"""A network is called narrow below this part of its full width. A quarter of it still learns CIFAR-10 well."""
TWICE = 2.0
"""A model that single steps fool half as often as PGD has learned to mislead single steps."""
MANY_GIVEN_UP = 0.9
"""Clean accuracy above which a network is not called too small or too briefly trained."""
STRONG = 30.0
"""A weight per example: more than twice the largest published one (12, on CIFAR-100)."""


def unfinished(case: Case) -> Finding | None:
    """The training has not reached its last epoch, and the guard did not stop it.

    Exact. Causes: a kill, or an error such as gradients that are not finite, which the training printed.
    """
    run = case.run
    if run.source is not None or run.result.status is not None or run.finished:
        return None
    done = run.epochs[-1].epoch if run.epochs else 0
    return Finding(
        "unfinished",
        f"The training has ended, or is at work, after {done} of {int(case.setting('epochs'))} epochs.",
        [Number("complete epochs", done)],
        [
            "the training is still at work, or was interrupted",
            "it stopped with an error, such as gradients that are not finite: then train anew with a lower --lr",
        ],
        case.resume(),
        "complete epochs",
    )


def not_finite(case: Case) -> Finding | None:
    """Steps were left out because their loss or gradient was infinite or NaN.

    Exact: a sound training has none. Source: the paper's failure sign "NaN: KL numerics" (arXiv 2510.05317).
    """
    lost = sum(len(row.lost_steps) for row in case.run.epochs)
    if not lost:
        return None
    rough = case.run.environment.precision == "bf16"
    lower = ["--lr", f"{case.setting('lr') / 10:g}"]
    causes = ["the learning rate is too high", "the weights of the KL terms are too large"]
    return Finding(
        "not finite",
        f"{lost} steps had a gradient that was not finite, and taught nothing.",
        [Number("steps without a finite gradient", lost), Number("peak learning rate", case.setting("lr"))],
        ["bfloat16 has too few digits for this loss", *causes] if rough else causes,
        case.train(*(["--precision", "32"] if rough else lower)),
        "steps without a finite gradient",
    )


def _last(case: Case, name: str) -> Share | None:
    return case.validation(case.validated[-1], name) if case.validated else None


def learned_nothing(case: Case) -> Share | None:
    """The final validation accuracy without an attack, if its interval reaches down to guessing; else None.

    With so few images that the interval also reaches 1/2, nothing is said. A model that predicts one class for nearly
    every test image has learned nothing either.
    """
    clean = _last(case, "clean")
    if clean is None:
        return None
    guessing = clean.low <= 1 / case.classes and clean.high < 0.5
    return clean if guessing or (case.answers_one_class and clean.high < 0.5) else None


def underfits(case: Case) -> tuple[Share, Share] | None:
    """The last accuracies on training images under the training's attack and on validation images without an attack.

    None unless both 95 % Wilson intervals lie below 90 %: the model fits not even its training images.
    """
    clean, during = _last(case, "clean"), case.training(case.run.epochs[-1]) if case.run.epochs else None
    if clean is None or during is None or max(clean.high, during.high) >= MANY_GIVEN_UP:
        return None
    return during, clean


def answers_one_class(case: Case) -> Finding | None:
    """A shown checkpoint predicts one class for nearly every test image, and no other rule says why.

    Exact: see `regmix.evaluation.one_answer`. It is not asked once there is a finding.
    """
    evaluation = case.evaluation
    if evaluation is None or evaluation.one_answer is None or case.run.source is not None:
        return None
    answer, clean = evaluation.one_answer, case.clean
    told = answer.text("the test images")
    return Finding(
        "one answer for all images",
        f"{told[:1].upper()}{told[1:]}.",
        [
            Number("share of the images with this answer", answer.share),
            *([Number.of("accuracy without an attack", clean)] if clean else []),
        ],
        ["the learning rate is too high, or ε too large, to learn anything", "the labels do not belong to the images"],
        case.train("--lr", f"{case.setting('lr') / 10:g}"),
        "accuracy without an attack",
    )


def learning_rate_too_high(case: Case) -> Finding | None:
    """The peak learning rate is above every usual one, and steps were lost or the model has learned nothing.

    Test: the 95 % Wilson interval of the validation accuracy includes guessing; lost steps are exact.
    """
    lr, lost = case.setting("lr"), sum(len(row.lost_steps) for row in case.run.epochs)
    clean, died = learned_nothing(case), not case.run.epochs and case.run.result.status is None
    if lr <= case.rates.high or not (lost or clean or died) or case.run.source is not None:
        return None
    evidence = [Number("peak learning rate", lr), Number("steps without a finite gradient", lost)]
    if clean is not None:
        evidence.append(Number.of("final validation accuracy without an attack", clean))
    return Finding(
        "learning rate too high",
        f"The peak learning rate of {lr:g} is above every usual one ({case.rates.text}), and the training shows it.",
        evidence,
        ["the learning rate is too high", *(_strong_causes(case) if clean is not None else [])],
        case.train("--lr", f"{case.rates.usual:g}"),
        "validation accuracy without an attack",
    )


def _strong_causes(case: Case) -> list[str]:
    causes = []
    if case.mutual is not None and max(case.mutual.per_example(case.classes)) > STRONG:
        causes.append("the weights of the KL terms are far above the published ones")
    if case.norm == "linf" and case.eps >= 0.25:
        causes.append("ε is too large to learn anything against")
    return causes


def learning_rate_too_low(case: Case) -> Finding | None:
    """The peak learning rate is below every usual one, and the training was still improving at its end.

    Test: the accuracy on the training images under the training's attack rose from the middle epoch to the last; the
    95 % interval of the difference excludes zero.
    """
    lr, rise = case.setting("lr"), _rise(case, 1 / 2)
    if lr >= case.rates.low or rise is None:
        return None
    return Finding(
        "learning rate too low",
        f"The peak learning rate of {lr:g} is below every usual one ({case.rates.text}), and the model was still "
        "improving when the training ended.",
        [Number("peak learning rate", lr), rise],
        ["the learning rate is too low", "there are too few epochs for this learning rate"],
        case.train("--lr", f"{case.rates.usual:g}"),
        "robust accuracy of the last weights",
    )


def _rise(case: Case, since: float) -> Number | None:
    """How much robust accuracy on training images rose after a part of the training, if that exceeds chance."""
    if len(case.run.epochs) < 2:
        return None
    first, last = case.run.epochs[int(since * (len(case.run.epochs) - 1))], case.run.epochs[-1]
    before, after = case.training(first), case.training(last)
    if before is None or after is None:
        return None
    rise, low, high = difference(after, before)
    what = f"rise of robust accuracy on training images from epoch {first.epoch} to {last.epoch}"
    return Number(what, rise, low, high) if low > 0 else None


def too_few_epochs(case: Case) -> Finding | None:
    """At most five epochs: a single one, or a last one that still improved the model.

    Tests: the 95 % interval of the validation accuracy without an attack lies below 90 %. With several epochs, robust
    accuracy on training images rose since the epoch before, beyond its 95 % interval. No published training has a
    single epoch, so there that it is one is enough.
    """
    run, clean = case.run, _last(case, "clean")
    if not run.finished or not run.epochs or len(run.epochs) > FEW_EPOCHS or clean is None:
        return None
    single, rise = len(run.epochs) == 1, _rise(case, 1 - 1 / max(1, len(run.epochs) - 1))
    if clean.high >= MANY_GIVEN_UP or (rise is None and not single):
        return None
    return Finding(
        "too few epochs",
        "The training had a single epoch."
        if single
        else f"The training had {len(run.epochs)} epochs, and the last still improved the model.",
        [
            Number("epochs", len(run.epochs)),
            *([rise] if rise is not None else []),
            Number.of("validation accuracy without an attack", clean),
        ],
        [
            "there are too few epochs",
            *(["the learning rate is too low"] if case.setting("lr") < case.rates.low else []),
        ],
        case.train("--epochs", str(max(20, 4 * len(run.epochs)))),
        "robust accuracy of the last weights",
    )


def cut_short(case: Case) -> Finding | None:
    """The best epoch is the last, the learning rate had not come down, and the model was still improving.

    Exact: the final learning rate is at least half of the peak. Test: robust accuracy on training images rose in the
    last quarter of the training; the 95 % interval excludes zero.
    """
    run = case.run
    if not run.finished or len(run.epochs) <= FEW_EPOCHS or run.best_epoch != run.epochs[-1].epoch:
        return None
    peak, rise = max(row.lr for row in run.epochs), _rise(case, 3 / 4)
    if rise is None or run.epochs[-1].lr < peak / 2 or peak < case.rates.low:
        return None
    return Finding(
        "cut short",
        "The last epoch is the best one, at a learning rate that had not come down: more training would help.",
        [rise, Number("final learning rate divided by the peak", run.epochs[-1].lr / peak)],
        ["there are too few epochs", "the schedule does not lower the learning rate at the end"],
        case.train("--epochs", str(2 * len(run.epochs)), "--schedule", "cyclic"),
        "robust accuracy of the last weights",
    )


def too_narrow(case: Case) -> Finding | None:
    """The network has less than an eighth of its architecture's full width, and fits neither old nor new images.

    Test: see `underfits`. Source: robustness needs capacity (arXiv 1706.06083, section 4).
    """
    kind, width, accuracies = (
        str(case.run.part("model").get("name")),
        case.run.part("model").get("width"),
        underfits(case),
    )
    if kind not in FULL_WIDTH or not isinstance(width, int) or accuracies is None or width * NARROW > FULL_WIDTH[kind]:
        return None
    during, clean = accuracies
    return Finding(
        "too narrow",
        f"The network has {width} channels where {kind} usually has {FULL_WIDTH[kind]}, and fits not even its "
        "training images.",
        [
            Number("width", width),
            Number.of("robust accuracy on training images", during),
            Number.of("validation accuracy without an attack", clean),
        ],
        [
            "the network is too small",
            *(["there are too few epochs"] if len(case.run.epochs) <= FEW_EPOCHS else []),
            *_strong_causes(case),
        ],
        case.train("--model.width", str(FULL_WIDTH[kind])),
        "robust accuracy of the last weights",
    )


def catastrophic_overfitting(case: Case) -> Finding | None:
    """After the last validation, single steps fool the model far less than PGD: it withstands only the former.

    For methods with an attack of one to three steps. Test: the lower end of FGSM accuracy's 95 % interval exceeds
    twice the upper end of PGD-10 accuracy's. Sources: arXiv 2001.03994, 2007.02617. An alarm from which the run has
    recovered is no finding.
    """
    fgsm, pgd = _last(case, "fgsm"), _last(case, "pgd")
    if case.method is None or not case.method.guarded or fgsm is None or pgd is None:
        return None
    if fgsm.low <= TWICE * pgd.high:
        return None
    alarms = case.run.result.alarms
    fell = f" The guard saw it first in epoch {alarms[0].epoch}." if alarms else ""
    return Finding(
        "catastrophic overfitting",
        f"The model withstands single steps ({percent(fgsm.accuracy)}) but not PGD ({percent(pgd.accuracy)}).{fell}",
        [
            Number.of("final validation accuracy under FGSM", fgsm),
            Number.of("final validation accuracy under PGD-10", pgd),
        ],
        [
            "the training's attack is too weak: it has too few steps for this ε (catastrophic overfitting)",
            *(["ε is too large for an attack of so few steps"] if case.norm == "linf" and case.eps >= 0.25 else []),
            "the gradients are masked; see the verdict of the evaluation",
        ],
        case.other_method("pgd_at", "--method.steps", "10"),
        "robust accuracy of the last weights",
    )
