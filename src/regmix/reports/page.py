"""The report's sections on test accuracy, as plain values: the summary, the tables and the comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regmix.evaluation import CLEAN, paired
from regmix.reports import words
from regmix.reports.load import Column, Outcomes, checkpoints
from regmix.reports.remarks import notes
from regmix.reports.statistics import Share, column_of, columns_at, radii, same_examples, worst_case
from regmix.reports.subject import FEW, Subject
from regmix.runs.evaluations import OUTCOMES
from regmix.threats import format_eps, same_eps
from regmix.types import OneAnswer


@dataclass(frozen=True)
class Row:
    """One attack, with the accuracy of each checkpoint (None if it was not run)."""

    name: str
    shares: list[Share | None]
    worst: bool = False


@dataclass(frozen=True)
class Group:
    """The rows of one radius, `training` if the model was trained at it. The clean row's group has no heading."""

    heading: str
    rows: list[Row]
    training: bool = False


@dataclass(frozen=True)
class Table:
    """The accuracies of one run, on the test images that `examples` describes."""

    checkpoints: list[str]
    groups: list[Group]
    examples: str
    notes: list[str]
    costs: list[tuple[str, str]]
    """What each column took: its name with the checkpoint, and a text."""


@dataclass(frozen=True)
class Number:
    """A number that stands out: its value, its 95 % interval ("" if it has none), and what it is."""

    value: str
    interval: str
    text: str


def number(own: Share, text: str) -> Number:
    """A share of images as a number with its interval."""
    return Number(words.percent(own.accuracy), f"{100 * own.low:.1f} to {100 * own.high:.1f}", text)


def judged_columns(subject: Subject) -> list[tuple[str, Column, str]]:
    """The columns by which a run is judged, under attack and without one: name, column, and what it says."""
    columns = [
        (subject.column(subject.checkpoint, subject.attack), f"correct {subject.where}{subject.passes}"),
        (subject.column(subject.checkpoint, CLEAN), f"correct without an attack{subject.passes}"),
    ]
    return [(*column, text) for column, text in columns if column]


def headline(subject: Subject) -> list[Number]:
    """The one or two numbers that stand for a run.

    For a model that predicts one class for nearly every image, only that share: its accuracies mean nothing.
    """
    if (same := one_answer(subject)) is not None:
        text = f'of the images are classified as "{same.name}", whatever they show'
        return [Number(words.percent(same.share), "", text)]
    shares = [(share(column), text) for _, column, text in judged_columns(subject)]
    return [number(own, text) for own, text in shares if own is not None]


def one_answer(subject: Subject) -> OneAnswer | None:
    """The class that the judged weights answer for nearly every image, if they do."""
    evaluation = subject.run.evaluations.get(subject.checkpoint or "")
    return evaluation.one_answer if evaluation else None


def share(column: Column | None) -> Share | None:
    """The accuracy and interval of a column, for a table."""
    return Share(column.accuracy, column.low, column.high) if column else None


def summary(those: Sequence[Subject]) -> list[str]:
    """The report in a few sentences. Runs with the same checkpoint, attack and images share sentences."""
    groups: dict[tuple[str, str, str, int, str | None, bool], list[Subject]] = {}
    constant = [(subject, same) for subject in those if (same := one_answer(subject)) is not None]
    for subject in those:
        if subject.checkpoint is not None and one_answer(subject) is None:
            evaluation = subject.run.evaluations[subject.checkpoint]
            images = f"images of {evaluation.elsewhere}" if evaluation.elsewhere else words.images_text(subject.run)
            examples = f"{evaluation.examples} {images}"
            average = subject.checkpoint == "best" and subject.run.best_is_average
            key = subject.checkpoint, subject.where, examples, evaluation.subject.draws, subject.run.source, average
            groups.setdefault(key, []).append(subject)
    sentences = [
        f'{words.heading(subject.label)} predicts "{same.name}" for {words.percent(same.share)} of the '
        f"{words.images_text(subject.run)} ({words.checkpoint_phrase(subject.run, subject.checkpoint or '')}), so its "
        "accuracies mean nothing."
        for subject, same in constant
    ]
    chosen: dict[tuple[str, str], list[Subject]] = {}
    for (checkpoint, where, examples, draws, source, _), alike in groups.items():
        if robust := _accuracies(alike, attacked=True):
            sentences.append(_robust_sentence(robust, where, examples))
        if clean := _accuracies(alike, attacked=False):
            sentences.append(_clean_sentence(clean))
        if source is None:
            chosen.setdefault((checkpoint, words.checkpoint_text(alike[0].run, checkpoint)), []).extend(alike)
        elif weights := alike[0].run.result.weights:
            sentences.append(f"Its weights: {weights}.")
        if draws > 1:
            sentences.append(f"The logits of {draws} passes were averaged for every prediction.")
    for (checkpoint, text), alike in chosen.items():
        plural = "" if len(alike) == 1 else "s"
        whose = "This is the" if len(alike) == 1 else "These are the"
        if len(chosen) > 1:
            whose = f"{words.heading(words.listed([subject.label for subject in alike]))}:"
        sentences.append(f"{whose} {checkpoint} checkpoint{plural}: {text}.")
    if missing := [subject.label for subject in those if subject.checkpoint is None]:
        verb = "has" if len(missing) == 1 else "have"
        sentences.append(f"{words.heading(words.listed(missing))} {verb} not been evaluated on test images yet.")
    for subject in those:
        wanted = words.training_eps(subject.run)
        if subject.eps is not None and wanted is not None and not same_eps(subject.eps, wanted):
            sentences.append(
                f"{words.heading(subject.label)} was not evaluated at the ε of its training, {format_eps(wanted)}; "
                f"this report uses the nearest ε, {subject.eps_text}, instead."
            )
    return sentences


def _accuracies(those: Sequence[Subject], attacked: bool) -> list[tuple[Subject, float]]:
    columns = [
        (subject, subject.column(subject.checkpoint, subject.attack if attacked else CLEAN)) for subject in those
    ]
    return [(subject, pair[1].accuracy) for subject, pair in columns if pair]


def _robust_sentence(robust: Sequence[tuple[Subject, float]], where: str, examples: str) -> str:
    if len(robust) <= FEW:
        (first, share), *rest = robust
        others = "".join(f", {subject.label} {words.percent(other)}" for subject, other in rest)
        own = f"{words.heading(first.label)} classifies {words.percent(share)} of the {examples} correctly"
        return f"{own} {where}{others}."
    ordered = sorted(robust, key=lambda pair: pair[1])
    (low, least), (high, most) = ordered[0], ordered[-1]
    return (
        f"Of the {examples}, {high.label} classifies the most correctly {where}, {words.percent(most)}, "
        f"and {low.label} the least, {words.percent(least)}."
    )


def _clean_sentence(clean: Sequence[tuple[Subject, float]]) -> str:
    if len(clean) == 1:
        return f"Without an attack: {words.percent(clean[0][1])}."
    if len(clean) <= FEW:
        parts = [f"{subject.label} {words.percent(share)}" for subject, share in clean]
        return f"Without an attack: {words.listed(parts)}."
    shares = [share for _, share in clean]
    return f"Without an attack: {words.percent(min(shares))} to {words.percent(max(shares))}."


def overview(those: Sequence[Subject]) -> list[tuple[Subject, Share | None, Share | None]]:
    """Per run, the accuracy without an attack and under the strongest; empty for so few runs that sentences do."""
    if len(those) <= FEW:
        return []
    columns = [
        (subject, subject.column(subject.checkpoint, CLEAN), subject.column(subject.checkpoint, subject.attack))
        for subject in those
    ]
    return [(subject, share(clean and clean[1]), share(robust and robust[1])) for subject, clean, robust in columns]


def table(subject: Subject) -> Table | None:
    """The accuracies of a run; None without an evaluation."""
    run, evaluated = subject.run, checkpoints(subject.run)
    if not evaluated:
        return None
    evaluations = [run.evaluations[name] for name in evaluated]
    clean = [column_of(evaluation, CLEAN, 0.0) for evaluation in evaluations]
    groups = [Group("", [Row("Clean", [share(pair[1]) if pair else None for pair in clean])])]
    trained_at, attacks_so_far = words.training_eps(run), 0
    for eps, text in radii([run]):
        columns = [columns_at(evaluation, eps) for evaluation in evaluations]
        names = list(dict.fromkeys(name for present in columns for name in present))
        attacks_so_far += len(names)
        kinds = {name: present[name].attack for present in columns for name in present}
        rows = [Row(words.attack_text(kinds[name]), [share(c.get(name)) for c in columns]) for name in names]
        if attacks_so_far > 1:
            worst = [
                worst_case(run, name, eps) if present.keys() >= {*names} else None  # else too few attacks to compare
                for name, present in zip(evaluated, columns, strict=True)
            ]
            rows.append(Row("Worst case", worst, worst=True))
        heading = f"ε = {text}" + (f" in {subject.norm}" if subject.norm else "")
        groups.append(Group(heading, rows, trained_at is not None and same_eps(eps, trained_at)))
    remarks = notes([run])
    remarks += [
        f"The worst case of {name} cannot be computed: its {OUTCOMES} is missing."
        for name in evaluated
        if name not in run.outcomes and len(groups) > 1
    ]
    elsewhere = {evaluation.subject.checkpoint for evaluation in run.others}.difference(evaluated)
    there = elsewhere.union(evaluated)
    if "averaged" not in there and run.source is None:
        averages = run.part("averaging").get("name", "none") != "none"
        remarks.append(
            "The averaged weights have not been evaluated." if averages else "This run keeps no averaged weights."
        )
    own = ("best", "last") if run.source is None else ()
    remarks += [f"The {name} checkpoint has not been evaluated." for name in own if name not in there]
    remarks += [f"The {name} checkpoint has been evaluated on other images only." for name in sorted(elsewhere)]
    costs = [
        (f"{words.checkpoint_name(run, checkpoint)}, {name}", column.cost.text())
        for checkpoint, evaluation in zip(evaluated, evaluations, strict=True)
        for name, column in evaluation.columns.items()
        if column.cost is not None
    ]
    for checkpoint, evaluation in zip(evaluated, evaluations, strict=True):
        searches = evaluation.curve.costs if evaluation.curve is not None else {}
        called = words.checkpoint_name(run, checkpoint)
        costs += [(f"{called}, smallest by {name}", cost.text()) for name, cost in searches.items()]
        costs += [(f"{called}, corruptions", each.cost.text()) for each in evaluation.corruptions if each.cost]
    return Table(evaluated, groups, words.sample_text(run, evaluations[0]), remarks, costs)


def comparisons(those: Sequence[Subject]) -> list[str]:
    """Sentences that compare the first run with each other run, if both met the same attack on the same examples."""
    sentences = []
    for other in those[1:]:
        first, second = judged(those[0], those[0].checkpoint), judged(other, other.checkpoint)
        if those[0].where != other.where or those[0].run.part("data") != other.run.part("data"):
            continue
        if first is None or second is None:
            continue
        if not same_examples(those[0].run, those[0].checkpoint or "", other.run, other.checkpoint or ""):
            continue
        difference = paired(first[1], second[1])
        sentences.append(words.comparison_text(those[0].label, other.label, other.where, difference, len(first[1])))
    return sentences


def judged(subject: Subject, checkpoint: str | None) -> tuple[Outcomes, NDArray[np.bool_]] | None:
    """The outcomes of a checkpoint, and which examples survive the attack by which the run is judged."""
    column, outcomes = subject.column(checkpoint, subject.attack), subject.run.outcomes.get(checkpoint or "")
    if column is None or outcomes is None or column[0] not in outcomes.survives:
        return None
    return outcomes, outcomes.survives[column[0]]
