"""Findings about the weights of RegMix's terms: the failure signs that its paper (arXiv 2510.05317) names."""

from regmix.methods.regmix import RegMix
from regmix.reports.findings.case import Case, Finding, Number, difference
from regmix.reports.findings.training import STRONG, underfits
from regmix.reports.words import attack_text
from regmix.threats import same_eps

FAR = 0.15
"""Published adversarial training on CIFAR-10 costs 10 to 15 points of clean accuracy."""
USUAL = {"alpha": 5.0, "beta": 2.0, "gamma": 2.0}
"""Weights per example of the paper's setting for CIFAR-10 (50, 20 and 20 at 10 classes)."""
LARGER = 1.5
"""A radius is called larger from so many times the training's on."""


def _flags(case: Case, weight: str, per_example: float) -> list[str]:
    """The flags that set one weight, in the units of the run's reduction; the others stay."""
    mutual = case.mutual
    assert mutual is not None, "a method without weights"
    prefix = "method" if isinstance(case.method, RegMix) else "method.mutual"
    scale = case.classes if mutual.reduction == "element" else 1
    now = dict(zip(USUAL, mutual.per_example(case.classes), strict=True)) if mutual.weights == "auto" else {}
    values = {**now, weight: per_example}
    given = ["--" + prefix + ".weights", "given"] if mutual.weights == "auto" else []
    return [*given, *(word for name, value in values.items() for word in (f"--{prefix}.{name}", f"{value * scale:g}"))]


def _weights(case: Case) -> dict[str, float]:
    """The weights per example by name; 0 without such terms."""
    mutual = case.mutual
    return dict(zip(USUAL, mutual.per_example(case.classes) if mutual is not None else (0.0, 0.0, 0.0), strict=True))


def lowered(per_example: float, usual: float) -> float:
    """A smaller weight to try: the usual one if this is far above it, else half."""
    return usual if per_example > 2 * usual else per_example / 2


def regularisation_too_strong(case: Case) -> Finding | None:
    """A weight is more than twice the largest published one, and the model fits not even its training images.

    Exact: the weight per example is above 30 (published: at most 12). Test: see `underfits`.
    """
    weights, accuracies = _weights(case), underfits(case)
    name = max(weights, key=lambda each: weights[each])
    if accuracies is None or weights[name] <= STRONG:
        return None
    during, clean = accuracies
    return Finding(
        "regularisation too strong",
        f"The weight {name} counts {weights[name]:g} per example, where the published ones count at most 12, and the "
        "model fits not even its training images.",
        [
            Number(f"{name} per example", weights[name]),
            Number.of("robust accuracy on training images", during),
            Number.of("final validation accuracy without an attack", clean),
        ],
        [
            f"{name} is too large: outputs that are all equal make its term zero",
            *(["the learning rate is too high for this weight"] if case.setting("lr") > 0.05 else []),
        ],
        case.train(*_flags(case, name, USUAL[name])),
        "validation accuracy without an attack",
    )


def gamma_too_high(case: Case) -> Finding | None:
    """Clean accuracy is more than 15 points below that of a plain model: gamma is too high.

    The plain model is a run of standard training given beside this one, on the same test images (paired 95 % interval),
    or the one that `regmix diagnose` trains for up to a minute, on the validation images (Newcombe's 95 % interval).
    The lower end of the interval counts. Source: failure sign of arXiv 2510.05317.
    """
    if not case.is_adversarial or case.mutual is None:
        return None
    deficit = below_plain(case)
    if deficit is None or deficit.low is None or deficit.low <= FAR:
        return None
    weights = _weights(case)
    causes = ["gamma is too high"] if weights["gamma"] else []
    causes += [f"{name} is far above its published weight" for name in ("alpha", "beta") if weights[name] > STRONG]
    causes += ["ε is large for these images", "the training is too short, or the network too small"]
    heavy = max(weights, key=lambda each: weights[each] / USUAL[each])
    return Finding(
        "clean accuracy far below a plain model's",
        f"Without an attack the model is {100 * deficit.value:.1f} points below a plain model.",
        [deficit, *(Number(f"{name} per example", value) for name, value in weights.items())],
        causes,
        case.train(*_flags(case, heavy, lowered(weights[heavy], USUAL[heavy]))),
        "accuracy without an attack",
    )


def below_plain(case: Case) -> Number | None:
    """The clean accuracy of a plain model minus that of this one; None if nothing tells it."""
    what = "clean accuracy of a plain model minus this one's"
    for peer in case.peers:
        # Until 2026-11-27 accuracy under attack chose the best epoch of a plain model: its last one counts.
        at = "last" if "last" in peer.run.outcomes else None
        if peer.run.part("method").get("name") == "standard" and (pair := case.against(peer, "clean", at)) is not None:
            return Number(f"{what}, on the same test images", -pair.difference, -pair.high, -pair.low)
    own = case.validation(case.validated[-1], "clean") if case.validated else None
    if case.plain is None or own is None:
        return None
    return Number(f"{what}, on the validation images", *difference(case.plain, own))


def overfitting_flags(case: Case) -> tuple[str, list[str]]:
    """For robust overfitting of a method with RegMix's terms: the cause, and the flags to try.

    Source: "large best-to-last drop: lower beta or raise gamma" (arXiv 2510.05317).
    """
    weights = _weights(case)
    if weights["beta"] > 0:
        return "beta is too high", _flags(case, "beta", lowered(weights["beta"], USUAL["beta"]))
    return "gamma is too low", _flags(case, "gamma", max(USUAL["gamma"], 2 * weights["gamma"]))


def weak_at_larger_eps(case: Case) -> Finding | None:
    """At a radius above the training's, another method is more robust: alpha is too low.

    Needs a run of another method with the same threat model beside this one, evaluated on the same test images at 1.5
    times the radius or more. Test: the paired 95 % interval of the difference, corrected for the number of such
    comparisons (Bonferroni), lies below zero there, and does not at the training's radius. Source: failure sign of
    arXiv 2510.05317.
    """
    evaluation = case.evaluation
    if case.mutual is None or evaluation is None or case.robust is None:
        return None
    larger = [
        (peer, name, column)
        for peer in case.peers
        if peer.run.part("method") != case.run.part("method") and peer.run.part("threat") == case.run.part("threat")
        for name, column in evaluation.columns.items()
        if column.eps >= LARGER * case.eps and not same_eps(column.eps, case.eps)
        if case.against(peer, name) is not None
    ]
    for peer, name, column in larger:
        at_training = case.against(peer, case.subject.column_name(case.subject.checkpoint or "") or "")
        pair = case.against(peer, name, comparisons=len(larger))
        if pair is None or pair.high >= 0 or at_training is None or at_training.high < 0:
            continue
        where = f"{attack_text(column.attack)} at ε = {column.eps_text}"
        alpha = _weights(case)["alpha"]
        return Finding(
            "weak at larger ε",
            f"Under {where} the model is {-100 * pair.difference:.1f} points below {peer.label}, but not at the ε "
            "of training.",
            [
                Number(f"accuracy under {where} minus that of {peer.label}", pair.difference, pair.low, pair.high),
                Number("the same at the ε of training", at_training.difference, at_training.low, at_training.high),
            ],
            ["alpha is too low", "the training's attack is weaker than the other method's"],
            case.train(*_flags(case, "alpha", max(USUAL["alpha"], 2 * alpha))),
            f"accuracy under {where}",
        )
    return None
