"""The report's section on the gap between the best and the last checkpoint."""

from dataclasses import dataclass

from regmix.evaluation import Paired, paired
from regmix.reports import words
from regmix.reports.findings.case import Case
from regmix.reports.findings.evaluated import no_robust_overfitting
from regmix.reports.load import checkpoints
from regmix.reports.page import judged, share
from regmix.reports.statistics import Share
from regmix.reports.subject import Subject
from regmix.runs.evaluations import OUTCOMES


@dataclass(frozen=True)
class Gap:
    """The best checkpoint against the last; without numbers if one of them is missing."""

    text: str
    best: Share | None = None
    last: Share | None = None
    difference: str = ""


def gap(subject: Subject) -> Gap:
    """The difference between the best and the last checkpoint under the strongest attack, on the same examples."""
    evaluated = checkpoints(subject.run)
    if missing := [name for name in ("best", "last") if name not in evaluated]:
        elsewhere = {evaluation.subject.checkpoint for evaluation in subject.run.others}
        if evaluated and elsewhere.issuperset(missing):
            return Gap("Best and last were evaluated on different test images, so the gap is not known.")
        return Gap(f"The gap is not known yet. Not evaluated: {words.listed(missing)}.")
    best, last = subject.column("best", subject.attack), subject.column("last", subject.attack)
    if best is None or last is None:
        why = (
            "best and last were not evaluated under the same attack"
            if subject.attack
            else "the evaluation had no attack"
        )
        return Gap(f"The gap is not known yet: {why}.")
    numbers = (share(best[1]), share(last[1]), words.points(best[1].accuracy - last[1].accuracy))
    for name in ("best", "last"):
        if same := subject.run.evaluations[name].one_answer:
            return Gap(f"The gap means nothing: with the {name} weights {same.text('the test images')}.", *numbers)
    run = subject.run
    if not run.best_is_average and run.epochs and run.best_epoch == run.epochs[-1].epoch:
        return Gap("Best and last are the same weights: the last epoch was the best one on validation.", *numbers)
    if best[1].correct == last[1].correct == 0:
        return Gap("Neither checkpoint classifies any attacked example correctly.", *numbers)
    tables = judged(subject, "best"), judged(subject, "last")
    if tables[0] is None or tables[1] is None:
        return Gap(f"{OUTCOMES} of best or last is missing, so the interval of the difference is not known.", *numbers)
    why = no_robust_overfitting(Case(subject))
    return Gap(_text(paired(tables[0][1], tables[1][1]), len(tables[0][1]), why), *numbers)


def _text(gap: Paired, examples: int, why: str = "") -> str:
    """What the difference between the best and the last checkpoint means; why: why it shows no robust overfitting."""
    interval = f"[{words.points(gap.low)}, {words.points(gap.high)}]"
    counts = (
        f"Of the {examples} examples, {gap.gained} are correct under attack only with best, and {gap.lost} only with "
        f"last. The 95% interval of the paired difference is {interval} points."
    )
    if why:
        return f"{counts} {why}: the gap does not show robust overfitting."
    if gap.low > 0:
        return (
            f"{counts} It excludes zero, so the gap exceeds the noise of this test sample: the model lost robustness "
            "after the best epoch (robust overfitting), and choosing the checkpoint on the validation split helped."
        )
    if gap.high < 0:
        return (
            f"{counts} It excludes zero: the last checkpoint is more robust than the one chosen on the validation "
            "split, so there is no robust overfitting."
        )
    return (
        f"{counts} It includes zero, so the gap does not exceed the noise of this test sample: "
        "these examples show no robust overfitting."
    )
