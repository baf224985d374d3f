"""What the report says of test accuracy: the summary, the tables and the comparisons, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regmix.evaluation import CLEAN, paired
from regmix.reports import words
from regmix.reports.charts import COLOURS, DASHES, Dash
from regmix.reports.load import Column, LoadedRun, Outcomes, checkpoints, same_eps
from regmix.reports.statistics import Share, column_of, columns_at, radii, same_examples, strongest, worst_case
from regmix.runs.evaluations import OUTCOMES
from regmix.threats import format_eps
from regmix.types import OneAnswer

FEW = 3
"""Up to so many runs fit into one sentence and, with all their checkpoints, into one chart."""


@dataclass(frozen=True)
class Subject:
    """A run with what all sections need to know of it.

    Attributes:
        colour: its number in the style sheet, from 1.
        dash: tells runs of the same colour apart where a line stands for a whole run.
        checkpoint: the evaluated checkpoint that speaks for the run (best where there is one); None without any.
        eps: the radius at which it is judged, the training's where that was evaluated; None without any attack.
        eps_text: that radius as the evaluation wrote it.
        attack: the strongest attack at that radius.
    """

    run: LoadedRun
    label: str
    colour: int
    dash: Dash
    checkpoint: str | None
    eps: float | None
    eps_text: str
    attack: str | None

    @property
    def where(self) -> str:
        """The attack and the radius in words."""
        if self.attack is None or self.eps is None:
            return "without an attack"
        return f"under {words.attack_text(self.attack)} at {words.eps_equals(self.eps_text)}"

    def column_name(self, checkpoint: str) -> str | None:
        """The name of the column under the attack by which the run is judged."""
        found = self.column(checkpoint, self.attack)
        return found[0] if found else None

    def column(self, checkpoint: str | None, attack: str | None) -> tuple[str, Column] | None:
        """A column at the radius at which the run is judged, and its name."""
        evaluation = self.run.evaluations.get(checkpoint or "")
        return column_of(evaluation, attack, self.eps or 0.0) if attack else None


@dataclass(frozen=True)
class Row:
    """One attack, with the share per checkpoint (None where it was not run)."""

    name: str
    shares: list[Share | None]
    worst: bool = False


@dataclass(frozen=True)
class Group:
    """The rows of one radius; the clean row has a group without a heading."""

    heading: str
    rows: list[Row]
    training: bool = False


@dataclass(frozen=True)
class Table:
    """The accuracies of one run; examples are per checkpoint where these differ."""

    checkpoints: list[str]
    groups: list[Group]
    examples: str
    notes: list[str]


@dataclass(frozen=True)
class OtherEvaluation:
    """An evaluation of the same weights on other images: what it was about, and a row of texts per column."""

    checkpoint: str
    images: str
    made: str
    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Gap:
    """Best against last; without numbers where one of them is missing."""

    text: str
    best: Share | None = None
    last: Share | None = None
    difference: str = ""


def subjects(runs: Sequence[LoadedRun]) -> list[Subject]:
    """Decides at which radius and under which attack each run is judged; runs of one threat model share the attack."""
    chosen = []
    for number, (run, label) in enumerate(zip(runs, words.labels(runs), strict=True)):
        there = checkpoints(run)
        wanted = words.training_eps(run) or 0.0
        nearest, text = min(radii([run]), key=lambda radius: abs(radius[0] - wanted), default=(None, ""))
        attack = None
        if nearest is not None:
            peers = [other for other in runs if checkpoints(other) and other.part("threat") == run.part("threat")]
            attack = strongest(peers, nearest) or strongest([run], nearest)
        around, colour = divmod(number, COLOURS - 1)
        dash = DASHES[around % len(DASHES)]
        checkpoint = there[0] if there else None
        chosen.append(Subject(run, label, 1 + colour, dash, checkpoint, nearest, text, attack))
    return chosen


def headline(one: Subject) -> list[tuple[str, str]]:
    """The one or two numbers that stand above a run's table, each with what it is.

    Of a model that answers one class for nearly everything, that: its accuracies are the share of this class.
    """
    if (same := _one_answer(one)) is not None:
        return [(words.percent(same.share), f'of the images are answered with "{same.name}", whatever they show')]
    numbers = [
        (one.column(one.checkpoint, one.attack), f"right {one.where}"),
        (one.column(one.checkpoint, CLEAN), "right without an attack"),
    ]
    return [(words.percent(found[1].accuracy), text) for found, text in numbers if found]


def _one_answer(one: Subject) -> OneAnswer | None:
    evaluation = one.run.evaluations.get(one.checkpoint or "")
    return evaluation.one_answer if evaluation else None


def share(column: Column | None) -> Share | None:
    """The numbers of a column that the tables show."""
    return Share(column.accuracy, column.low, column.high) if column else None


def summary(those: Sequence[Subject]) -> list[str]:
    """The report in a few sentences; runs that were judged alike share them."""
    groups: dict[tuple[str, str, str], list[Subject]] = {}
    constant = [(one, same) for one in those if (same := _one_answer(one)) is not None]
    for one in those:
        if one.checkpoint is not None and _one_answer(one) is None:
            examples = f"{one.run.evaluations[one.checkpoint].examples} {words.images_text(one.run)}"
            groups.setdefault((one.checkpoint, one.where, examples), []).append(one)
    sentences = [
        f'{words.heading(one.label)} answers "{same.name}" for {words.percent(same.share)} of the '
        f"{words.images_text(one.run)} ({one.checkpoint} checkpoint): its accuracies say nothing."
        for one, same in constant
    ]
    for (checkpoint, where, examples), alike in groups.items():
        if robust := _accuracies(alike, attacked=True):
            sentences.append(_robust_sentence(robust, where, examples))
        if clean := _accuracies(alike, attacked=False):
            sentences.append(_clean_sentence(clean))
        whose = "This is the" if len(alike) == 1 else "These are the"
        plural = "" if len(alike) == 1 else "s"
        sentences.append(f"{whose} {checkpoint} checkpoint{plural}: {words.CHECKPOINT_TEXTS[checkpoint]}.")
    if missing := [one.label for one in those if one.checkpoint is None]:
        verb = "has" if len(missing) == 1 else "have"
        sentences.append(f"{words.heading(words.listed(missing))} {verb} not been evaluated on test images yet.")
    for one in those:
        wanted = words.training_eps(one.run)
        if one.eps is not None and wanted is not None and not same_eps(one.eps, wanted):
            sentences.append(
                f"{words.heading(one.label)} was not evaluated at the ε of its training, {format_eps(wanted)}; "
                f"the nearest one, {one.eps_text}, stands in."
            )
    return sentences


def _accuracies(those: Sequence[Subject], attacked: bool) -> list[tuple[Subject, float]]:
    found = [(one, one.column(one.checkpoint, one.attack if attacked else CLEAN)) for one in those]
    return [(one, pair[1].accuracy) for one, pair in found if pair]


def _robust_sentence(robust: Sequence[tuple[Subject, float]], where: str, examples: str) -> str:
    if len(robust) <= FEW:
        (first, share), *rest = robust
        others = "".join(f", {one.label} {words.percent(other)}" for one, other in rest)
        return f"{words.heading(first.label)} keeps {words.percent(share)} of the {examples} right {where}{others}."
    ordered = sorted(robust, key=lambda pair: pair[1])
    (low, least), (high, most) = ordered[0], ordered[-1]
    return (
        f"Of the {examples}, {high.label} keeps the most right {where}, {words.percent(most)}, "
        f"and {low.label} the least, {words.percent(least)}."
    )


def _clean_sentence(clean: Sequence[tuple[Subject, float]]) -> str:
    if len(clean) == 1:
        return f"Without an attack: {words.percent(clean[0][1])}."
    if len(clean) <= FEW:
        return f"Without an attack: {words.listed([f'{one.label} {words.percent(share)}' for one, share in clean])}."
    shares = [share for _, share in clean]
    return f"Without an attack: {words.percent(min(shares))} to {words.percent(max(shares))}."


def overview(those: Sequence[Subject]) -> list[tuple[Subject, Share | None, Share | None]]:
    """Without an attack and under the strongest one, per run; for more runs than a sentence can hold."""
    if len(those) <= FEW:
        return []
    columns = [(one, one.column(one.checkpoint, CLEAN), one.column(one.checkpoint, one.attack)) for one in those]
    return [(one, share(clean and clean[1]), share(robust and robust[1])) for one, clean, robust in columns]


def attacks(runs: Sequence[LoadedRun]) -> list[str]:
    """Every attack of every evaluation, in order, without clean."""
    names = [
        column.attack
        for run in runs
        for name in checkpoints(run)
        for column in run.evaluations[name].columns.values()
        if column.eps > 0
    ]
    return list(dict.fromkeys(names))


def notes(runs: Sequence[LoadedRun]) -> list[str]:
    """What must stand beside the numbers of some attacks."""
    found = {
        column.attack: f"{words.attack_text(column.attack)}: {column.note}"
        for run in runs
        for name in checkpoints(run)
        for column in run.evaluations[name].columns.values()
        if column.note
    }
    return list(found.values())


def samples(runs: Sequence[LoadedRun]) -> list[str]:
    """Which test images the evaluations are of, each kind once."""
    found = [words.sample_text(run, run.evaluations[name]) for run in runs for name in checkpoints(run)]
    return list(dict.fromkeys(found))


def table(one: Subject) -> Table | None:
    """The accuracies of a run; None without an evaluation."""
    run, there = one.run, checkpoints(one.run)
    if not there:
        return None
    evaluations = [run.evaluations[name] for name in there]
    found = [column_of(evaluation, CLEAN, 0.0) for evaluation in evaluations]
    groups = [Group("", [Row("Clean", [share(pair[1]) if pair else None for pair in found])])]
    wanted = words.training_eps(run)
    for eps, text in radii([run]):
        columns = [columns_at(evaluation, eps) for evaluation in evaluations]
        names = list(dict.fromkeys(name for present in columns for name in present))
        kinds = {name: present[name].attack for present in columns for name in present}
        rows = [Row(words.attack_text(kinds[name]), [share(c.get(name)) for c in columns]) for name in names]
        if len(names) > 1:
            rows.append(Row("Worst case", [worst_case(run.outcomes.get(name), names) for name in there], worst=True))
        groups.append(Group(f"ε = {text}", rows, wanted is not None and same_eps(eps, wanted)))
    counts = [words.sample_text(run, evaluation) for evaluation in evaluations]
    if len(set(counts)) == 1:
        examples = counts[0]
    else:
        examples = ", ".join(f"{name}: {count}" for name, count in zip(there, counts, strict=True))
    beside = notes([run])
    beside += [
        f"The worst case of {name} cannot be computed: its {OUTCOMES} is missing."
        for name in there
        if name not in run.outcomes and len(groups) > 1
    ]
    if "averaged" not in there:
        averages = run.part("averaging").get("name", "none") != "none"
        beside.append(
            "The averaged weights have not been evaluated." if averages else "This run keeps no averaged weights."
        )
    beside += [f"The {name} checkpoint has not been evaluated." for name in ("best", "last") if name not in there]
    return Table(there, groups, examples, beside)


def others(run: LoadedRun) -> list[OtherEvaluation]:
    """The evaluations of a run that the tables do not show."""
    found = []
    for one in run.others:
        rows = []
        for column in one.columns.values():
            name = words.attack_text(column.attack) + (f" at {words.eps_equals(column.eps_text)}" if column.eps else "")
            interval = f"{words.percent(column.low)} to {words.percent(column.high)}"
            rows.append((name, f"{words.percent(column.accuracy)} ({interval})"))
        subject = one.subject
        draws = f", mean of {subject.draws} passes" if subject.draws > 1 else ""
        found.append(OtherEvaluation(subject.checkpoint, words.sample_text(run, one) + draws, one.made[:10], rows))
    return found


def comparisons(those: Sequence[Subject]) -> list[str]:
    """The first run against each other one, where both met the same attack on the same examples."""
    sentences = []
    for other in those[1:]:
        first, second = judged(those[0], those[0].checkpoint), judged(other, other.checkpoint)
        if those[0].where != other.where or those[0].run.part("data") != other.run.part("data"):
            continue
        if first is None or second is None or not same_examples(first[0], second[0]):
            continue
        shown = [one.run.evaluations[one.checkpoint or ""] for one in (those[0], other)]
        if shown[0].images != shown[1].images:
            continue
        difference = paired(first[1], second[1])
        sentences.append(words.comparison_text(those[0].label, other.label, other.where, difference, len(first[1])))
    return sentences


def judged(one: Subject, checkpoint: str | None) -> tuple[Outcomes, NDArray[np.bool_]] | None:
    """The outcomes of a checkpoint, and which examples survive the attack by which the run is judged."""
    found, outcomes = one.column(checkpoint, one.attack), one.run.outcomes.get(checkpoint or "")
    if found is None or outcomes is None or found[0] not in outcomes.survives:
        return None
    return outcomes, outcomes.survives[found[0]]


def gap(one: Subject) -> Gap:
    """Best against last under the strongest attack, on the same examples."""
    there = checkpoints(one.run)
    if missing := [name for name in ("best", "last") if name not in there]:
        return Gap(f"There is no gap to speak of yet: not evaluated so far: {words.listed(missing)}.")
    if one.attack is None:
        return Gap("There is no gap to speak of yet: the evaluation had no attack.")
    best, last = one.column("best", one.attack), one.column("last", one.attack)
    if best is None or last is None:
        return Gap("There is no gap to speak of yet: best and last did not meet the same attack.")
    numbers = (share(best[1]), share(last[1]), words.points(best[1].accuracy - last[1].accuracy))
    if one.run.epochs and one.run.best_epoch == one.run.epochs[-1].epoch:
        return Gap("Best and last are the same weights: the last epoch was the best one on validation.", *numbers)
    if best[1].correct == last[1].correct == 0:
        return Gap("Neither checkpoint keeps a single example, so there is no robustness to lose.", *numbers)
    tables = judged(one, "best"), judged(one, "last")
    if tables[0] is None or tables[1] is None:
        return Gap(f"{OUTCOMES} of best or last is missing, so the noise of the difference is not known.", *numbers)
    if not same_examples(tables[0][0], tables[1][0]):
        return Gap("Best and last were evaluated on different examples, so no paired difference exists.", *numbers)
    return Gap(words.gap_text(paired(tables[0][1], tables[1][1]), len(tables[0][1])), *numbers)
