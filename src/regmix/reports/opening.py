"""The first screen of the report: the result in a few numbers and one chart, and what to do next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from regmix.evaluation import CLEAN
from regmix.reports import comparison, words
from regmix.reports.classes import Classes
from regmix.reports.findings import RADIUS, Finding
from regmix.reports.intervals import Dot, IntervalChart, Row, dot, interval_chart
from regmix.reports.page import Number, headline, judged_columns, number, one_answer, share
from regmix.reports.remarks import attacked_elsewhere
from regmix.reports.statistics import Share, columns_at, mean, radii, worst_case
from regmix.reports.subject import Subject
from regmix.threats import same_eps

RADII = 7
"""At most as many radii are in the chart of a single run; those nearest to the one by which it is judged."""


@dataclass(frozen=True)
class Opening:
    """What the first screen shows."""

    numbers: list[Number]
    charts: list[IntervalChart]
    advice: list[tuple[str, list[str]]]
    """Sentences, each with the labels of the runs that it is about; no labels in a report about a single run."""


def opening(
    subjects: Sequence[Subject],
    arms: Sequence[comparison.Arm],
    classes: Sequence[Classes | None],
    findings: Sequence[Sequence[Finding]],
) -> Opening:
    """The first screen of a report about these runs; `classes` and `findings` are those of the subjects."""
    about: dict[str, list[str]] = {}
    for subject, found in zip(subjects, findings, strict=True):
        for sentence in _advice(subject, found):
            about.setdefault(sentence, []).append(subject.label)
    advice = [(sentence, list[str]()) for sentence in attacked_elsewhere(subjects)]
    advice += [(sentence, labels if len(subjects) > 1 else []) for sentence, labels in about.items()]
    (subject, *_), (arm, *_), (own, *_) = subjects, arms, classes
    if len(arms) > 1:
        charts = _comparison(subjects, arms)
        return Opening([], charts, advice if charts else [*_not_compared(arms), *advice])
    if len(arm.runs) > 1:
        means = _over_seeds(subject, arm)
        return Opening(means, _seeds(subject, arm), advice if means else [*_not_compared(arms), *advice])
    return Opening(_numbers(subject, own), _against_radius(subject), advice)


def _numbers(subject: Subject, classes: Classes | None) -> list[Number]:
    """The robust and the clean accuracy and the weakest class, or that the model answers one class only."""
    numbers = headline(subject)
    if classes is not None and len(classes.rows) > 1 and one_answer(subject) is None:
        weakest = min(classes.rows, key=lambda row: row.robust.accuracy)
        numbers.append(number(weakest.robust, f'of "{weakest.name}" correct under attack, the weakest class'))
    return numbers


def _against_radius(subject: Subject) -> list[IntervalChart]:
    """The accuracy without an attack, and in the worst case of each radius."""
    run, name = subject.run, subject.checkpoint
    if name is None or one_answer(subject) is not None:
        return []
    evaluation, wanted = run.evaluations[name], words.training_eps(run)
    clean = subject.column(name, CLEAN)
    rows = [_row("no attack", own)] if (own := share(clean and clean[1])) else []
    near = sorted(radii([run]), key=lambda radius: abs(radius[0] - (subject.eps or 0.0)))[:RADII]
    for eps, text in sorted(near):
        worst = worst_case(run, name, eps) if columns_at(evaluation, eps) else None
        if worst is not None:
            trained = " (of the training)" if wanted is not None and same_eps(eps, wanted) else ""
            rows.append(_row(f"{words.eps_equals(text)}{trained}", worst))
    note = (
        f"{words.checkpoint_phrase(run, name)}{subject.passes}, worst case over the attacks up to each ε, 95% intervals"
    )
    return [interval_chart("Images classified correctly", rows, note=note)] if len(rows) > 1 else []


def _row(label: str, own: Share) -> Row:
    return Row(label, [dot(own)], words.percent(own.accuracy))


def _over_seeds(subject: Subject, arm: comparison.Arm) -> list[Number]:
    """The robust and the clean accuracy as means over seeds."""
    means = [(_mean(arm, subject.checkpoint or "", name), text) for name, _, text in judged_columns(subject)]
    return [number(own, f"{text}, mean over {len(arm.runs)} seeds") for own, text in means if own is not None]


def _not_compared(arms: Sequence[comparison.Arm]) -> list[tuple[str, list[str]]]:
    """Why there is no mean and no comparison of runs that were evaluated."""
    if not all(run.evaluations for arm in arms for run in arm.runs):
        return []
    what = "compared" if len(arms) > 1 else "averaged"
    return [(f"Not {what}: the runs were evaluated on different images, or under different attacks.", [])]


def _both(subject: Subject, arms: Sequence[comparison.Arm], labels: Sequence[str], colours: Sequence[int]) -> list[Row]:
    """A row per arm with its accuracy under the attack by which the subject is judged, and without an attack."""
    checkpoint = subject.checkpoint or ""
    rows = []
    for arm, label, colour in zip(arms, labels, colours, strict=True):
        columns = [subject.column_name(checkpoint), CLEAN]
        shares = [_mean(arm, checkpoint, column) if column else None for column in columns]
        dots = [dot(own, hollow=name == CLEAN) for own, name in zip(shares, columns, strict=True) if own is not None]
        if dots:
            rows.append(Row(label, dots, " / ".join(words.percent(each.value) for each in dots), colour))
    return rows


def _comparison(subjects: Sequence[Subject], arms: Sequence[comparison.Arm]) -> list[IntervalChart]:
    """All methods with their clean and robust accuracy, and the differences between the first and the others."""
    first = subjects[0]
    checkpoint = first.checkpoint or ""
    column = first.column_name(checkpoint)
    pairs = [*zip(subjects, arms, strict=True)]
    in_norm = [(subject, arm) for subject, arm in pairs if subject.run.norm == first.run.norm]
    there = [
        (subject.colour, arm if len(arm.runs) > 1 else replace(arm, label=subject.label))
        for subject, arm in in_norm
        if all(checkpoint in run.evaluations for run in arm.runs)
    ]
    missing = {
        "not evaluated": [
            subject.label for subject, arm in in_norm if any(checkpoint not in run.evaluations for run in arm.runs)
        ],
        "attacked in another norm": [subject.label for subject, _ in pairs if subject.run.norm != first.run.norm],
    }
    arms = [arm for _, arm in there]
    if column is None or not arms or column not in comparison.shared_columns(arms).get(checkpoint, []):
        return []
    rows = _both(first, arms, [arm.label for arm in arms], [colour for colour, _ in there])
    charts = [_accuracies(first, sorted(rows, key=lambda row: -row.dots[0].value), missing)]
    differences = [
        Row(f"minus {pair.second}", [Dot(pair.difference, pair.low, pair.high)], words.points(pair.difference))
        for pair in comparison.differences(arms, checkpoint, column)
        if pair.first == arms[0].label
    ]
    if differences:
        note = f"{words.heading(first.where)}, in points; 95% intervals over {comparison.covered(arms)}"
        title = f"{words.heading(arms[0].label)} against the others"
        charts.append(interval_chart(title, differences, note=note, percent=False))
    return charts


def _seeds(subject: Subject, arm: comparison.Arm) -> list[IntervalChart]:
    """The runs of one method, a row per seed that was evaluated."""
    single = [comparison.Arm(arm.label, [run]) for run in arm.runs]
    labels = [f"seed {run.seed}" for run in arm.runs]
    rows = _both(subject, single, labels, [subject.colour] * len(single))
    return [_accuracies(subject, rows)] if rows else []


def _accuracies(
    subject: Subject, rows: Sequence[Row], missing: Mapping[str, Sequence[str]] | None = None
) -> IntervalChart:
    weights = words.checkpoint_phrase(subject.run, subject.checkpoint or "")
    note = f"{weights}{subject.passes}, 95% intervals"
    for why, labels in (missing or {}).items():
        note += f"; {why}: that of {', '.join(labels)}" if labels else ""
    legend = (subject.where, "without an attack")
    return interval_chart("Images classified correctly", rows, note=note, legend=legend)


def _mean(arm: comparison.Arm, checkpoint: str, column: str) -> Share | None:
    """The mean over seeds with its interval; of a single run its Wilson interval; None without an evaluation."""
    if len(arm.runs) == 1:
        evaluation = arm.runs[0].evaluations.get(checkpoint)
        return None if evaluation is None else share(evaluation.columns.get(column))
    survives = arm.survives(checkpoint, column)
    return None if survives is None else Share(*mean(survives))


def _capitalised(name: str) -> str:
    """With a capital at the start, except for the symbol of the radius."""
    return name if name.startswith(RADIUS) else f"{name[:1].upper()}{name[1:]}"


def _advice(subject: Subject, found: Sequence[Finding]) -> list[str]:
    sentences = [finding.brief or f"{_capitalised(finding.name)}." for finding in found[:3]]
    if len(found) > 3:
        sentences.append(f"And {words.counted(len(found) - 3, 'more finding', 'more findings')}.")
    if subject.checkpoint is None:
        return ["Not evaluated yet.", *sentences]
    masking = subject.run.evaluations[subject.checkpoint].masking
    if masking is not None and masking.verdict == "undecided":
        sentences.insert(0, words.VERDICTS[masking.verdict])
    return sentences or ["No sign that the training or the evaluation went wrong."]
