"""Findings from evaluations on test images."""

import math
import re

from regmix.evaluation import CHANCE, CLEAN, RANDOM, Paired, paired, wilson
from regmix.reports.findings.case import RADIUS, Case, Finding, Number, difference
from regmix.reports.findings.training import catastrophic_overfitting
from regmix.reports.findings.weights import overfitting_flags
from regmix.reports.load import is_attacked
from regmix.reports.statistics import columns_at
from regmix.threats import format_eps, turns_grey

NOTHING = 0.01
"""An attack that changes less than one point tests nothing that matters."""
WEAK = re.compile(r"fgsm$|(pgd|mi-fgsm|cw)-\d(x\d+)?$|transfer:")
"""Names of attacks with fewer than ten steps, or of adversarial images of another model."""
USUAL_EPS = {"linf": "8/255", "l2": "0.5", "l1": "12"}
"""The radii that are usual for colour images of 32 pixels."""
HALF_LEVEL = 0.5 / 255
"""A smaller change of a pixel vanishes when the image is saved in 256 grey levels."""


def not_evaluated(case: Case) -> Finding | None:
    """There are weights, but no evaluation of them under an attack holds. Exact."""
    evaluations = [*case.run.evaluations.values(), *case.run.others]
    if any(map(is_attacked, evaluations)) or not (case.run.epochs or case.run.source):
        return None
    return Finding(
        "not evaluated",
        "No valid evaluation under an attack says how robust these weights are; the validation images served to choose "
        "them.",
        [Number("evaluations under an attack that hold", 0)],
        ["it was never evaluated under an attack", "weights, settings or code have changed since"],
        case.evaluate(),
        "evaluations under an attack that hold",
    )


def weak_attacks(case: Case) -> Finding | None:
    """At the radius by which the run is judged, only attacks of fewer than ten steps, or from another model, were run.

    Exact. Such attacks miss many adversarial images: a model that they do not break may have no robustness at all
    (arXiv 1802.00420, 2003.01690).
    """
    evaluation, robust = case.evaluation, case.robust
    if evaluation is None or robust is None:
        return None
    names = [each.attack for each in columns_at(evaluation, robust.eps).values()]
    if not all(map(WEAK.match, names)):
        return None
    return Finding(
        "weak attacks only",
        f"At ε = {robust.eps_text} nothing stronger was run than {', '.join(names)}; another may leave far less.",
        [Number.of(f"accuracy under {robust.attack}", robust)],
        ["the evaluation was cut down with --attacks"],
        case.evaluate("--eps", robust.eps_text),
        "an accuracy that can be trusted",
    )


def failed_checks(case: Case) -> Finding | None:
    """The checks before the attacks found something by which the numbers mean little. Exact.

    They are those of `regmix.evaluation.preflight`, and that the code of the model is that of the training. Left out:
    that a random model differs from pass to pass, where the mean of several passes was evaluated; and that a training
    ended with one answer for all images, whose causes the other rules name.
    """
    evaluation = case.evaluation
    if evaluation is None:
        return None
    failed = evaluation.preflight
    if evaluation.subject.draws > 1:
        failed = [text for text in failed if not text.startswith(RANDOM)]
    if evaluation.one_answer is not None and case.run.source is None:
        same = evaluation.one_answer.text("the test images")
        failed = [text for text in failed if text != same and CHANCE not in text]
    if not failed:
        return None
    clean = case.clean
    evidence = [Number("failed checks", len(failed))]
    if clean is not None:
        evidence.append(Number.of("accuracy without an attack", clean))
    told = f"Before the attacks: {'. '.join(failed)}."
    return Finding(
        "failed checks",
        told,
        evidence,
        ["the model or what it is given is not as it should be; its accuracies then mean little"],
        case.evaluate(),
        "what the checks find, once it is mended",
        brief=told,
    )


def masked_gradients(case: Case) -> Finding | None:
    """The verdict of an evaluation is: masked.

    Its tests are those of `regmix.evaluation.masking` (arXiv 1802.00420, 1902.06705), on 64 images.
    """
    masking = case.evaluation.masking if case.evaluation is not None else None
    if masking is None or masking.verdict != "masked":
        return None
    evidence = [Number("signs of masked gradients", len(masking.signs))]
    if masking.probe is not None:
        probe, n = masking.probe, masking.probe.examples
        for what, value in {
            "accuracy under APGD on probed images": probe.white_box,
            "accuracy under Square on probed images": probe.black_box,
            "share broken by Square alone": probe.only_black_box,
            "share without a gradient": probe.zero_gradients,
        }.items():
            evidence.append(Number(what, value, *wilson(round(value * n), n)))
    robust = case.is_adversarial
    return Finding(
        "masked gradients",
        f"Its accuracies under gradient attacks are too high: {'; '.join(masking.signs) or 'the gradients mislead'}.",
        evidence,
        [
            "the training has learned to hide gradients from its own attack",
            "the model itself hides them (rounding, a saturated output, randomness)",
        ],
        case.other_method("pgd_at", "--method.steps", "10")
        if robust
        else case.evaluate("--attacks", "apgd-ce,apgd-dlr,square"),
        "the verdict on masked gradients" if robust else "an accuracy that can be trusted",
    )


def robust_overfitting(case: Case) -> Finding | None:
    """The best weights are more robust than the last ones on the same test images, beyond chance.

    Test: the paired 95 % interval of best minus last excludes zero. The best epoch was chosen on other images. A model
    that answers one class for everything, or that has overfitted catastrophically, is not judged; nor is one whose best
    weights are an average, or whose accuracy on training images fell, too, beyond its 95 % interval: it has come
    undone. Sources: arXiv 2002.11569; the failure sign of arXiv 2510.05317.
    """
    gap = case.best_minus_last()
    if not case.is_adversarial or gap is None or gap.low <= 0 or case.answers_one_class:
        return None
    if no_robust_overfitting(case):
        return None
    if case.mutual is not None:
        cause, flags = overfitting_flags(case)
    else:
        cause, flags = "nothing keeps the weights from overfitting", ["--awp", "0.005"]
    best = case.run.best_epoch
    return Finding(
        "robust overfitting",
        f"From its best epoch{f', {best},' if best else ''} to the last one the model lost {100 * gap.difference:.1f} "
        "points of robust test accuracy.",
        [Number("robust accuracy of best minus last", gap.difference, gap.low, gap.high)],
        [cause, "there are too many epochs after the learning rate has come down", "there are too few training images"],
        case.train(*flags),
        "robust accuracy of the last weights",
    )


def no_robust_overfitting(case: Case) -> str:
    """Why a gap between the best and the last weights shows no robust overfitting; empty: it may show it."""
    if case.run.best_is_average:
        return "Best is averaged weights, and last is not, so the gap is also what averaging gains"
    if case.method is not None and not case.is_adversarial:
        return "Standard training chooses its best epoch by accuracy without an attack"
    if catastrophic_overfitting(case) is not None:
        return "The training has overfitted catastrophically"
    if _has_come_undone(case):
        return "The accuracy on the training images fell, too"
    return ""


def _has_come_undone(case: Case) -> bool:
    """Whether the accuracy on training images fell from the best epoch to the last, beyond chance."""
    rows = {row.epoch: case.training(row) for row in case.run.epochs}
    best, last = rows.get(case.run.best_epoch or 0), rows.get(len(rows))
    return best is not None and last is not None and difference(best, last)[1] > 0


def eps_tests_nothing(case: Case) -> Finding | None:
    """The strongest attack changes nothing: the radius is too small to tell methods apart.

    Exact: under L-infinity, less than half a grey level. Or a test: the paired 95 % interval of clean minus robust
    accuracy ends below one point.
    """
    cost = _cost(case)
    radii = [eps for eps in (case.eps, case.subject.eps) if eps]
    tiny = case.norm == "linf" and min(radii, default=1.0) < HALF_LEVEL
    if not tiny and (cost is None or cost.high >= NOTHING or not _has_learned(case)):
        return None
    evidence = [Number(RADIUS, min(radii, default=0.0))]
    if cost is not None:
        evidence.append(Number("accuracy without an attack minus that under it", cost.difference, cost.low, cost.high))
    usual = USUAL_EPS.get(case.norm, "8/255")
    # Where only the evaluation was at a smaller radius, another training would change nothing.
    trained_at_it = case.run.source is None and case.eps <= min(radii, default=case.eps)
    return Finding(
        "ε tests nothing",
        "At this ε the strongest attack changes next to nothing, so the robust accuracy says nothing beyond the clean "
        "one.",
        evidence,
        ["ε is too small; radii count in units of the pixel range [0, 1]", "the attacks are too weak"],
        case.train("--threat.eps", usual) if trained_at_it else case.evaluate("--eps", usual),
        f"robust accuracy at ε = {usual}",
    )


def _has_learned(case: Case) -> bool:
    """Whether the clean accuracy is above guessing, beyond chance: a model that knows nothing has nothing to lose."""
    evaluation, classes = case.evaluation, len(case.run.result.classes)
    clean = None if evaluation is None else evaluation.columns.get(CLEAN)
    return clean is not None and clean.low > 1 / max(2, classes)


def _cost(case: Case) -> Paired | None:
    name = case.subject.column_name(case.subject.checkpoint or "")
    outcomes = case.run.outcomes.get(case.subject.checkpoint or "")
    if outcomes is None or name not in outcomes.survives or case.answers_one_class:
        return None
    return paired(outcomes.survives[CLEAN], outcomes.survives[name])


def eps_turns_grey(case: Case) -> Finding | None:
    """No classifier can withstand the radius. Exact: under L-infinity at 1/2 every image can be turned into the same
    grey."""
    if not turns_grey(case.norm, case.eps):
        return None
    return _too_large(case, [], ["at ε = 1/2 every image can be turned into the same grey, so no model can be robust"])


def eps_too_large(case: Case) -> Finding | None:
    """The model is worse than guessing at the radius at which it was trained.

    Test: it was trained against attacks and is better than guessing without one, but under attack its 95 % interval
    lies below the share of the largest class.
    """
    evaluation, robust, clean = case.evaluation, case.robust, case.clean
    if not case.is_adversarial or evaluation is None or robust is None or clean is None:
        return None
    guess = max(evaluation.subject.data.counts) / sum(evaluation.subject.data.counts)
    at_training = math.isclose(robust.eps, case.eps, rel_tol=1e-3)
    if not (at_training and robust.high < guess < clean.low) or eps_turns_grey(case) is not None:
        return None
    if catastrophic_overfitting(case) is not None:
        return None
    evidence = [
        Number.of("accuracy under the strongest attack", robust),
        Number("share of the largest class", guess),
    ]
    causes = ["the training was too short or too weak", "the network is too small"]
    return _too_large(case, evidence, ["ε is too large for these images: other classes are within reach", *causes])


def _too_large(case: Case, evidence: list[Number], causes: list[str]) -> Finding:
    quarter = format_eps(case.eps / 4)
    return Finding(
        "ε too large",
        f"Nothing can be learned against ε = {format_eps(case.eps)}, or this model has not.",
        [Number(RADIUS, case.eps), *evidence],
        causes,
        case.train("--threat.eps", quarter),
        f"robust accuracy at ε = {quarter}",
    )
