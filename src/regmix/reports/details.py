"""The report's curves, pictures and settings, as plain values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regmix.evaluation import CLEAN
from regmix.reports import words
from regmix.reports.charts import COLOURS, DASHES, Chart, Dash, Mark, Series, line_chart
from regmix.reports.images import magnification, triples
from regmix.reports.load import Epoch, LoadedRun, checkpoints, same_eps
from regmix.reports.page import FEW, Subject, attacks
from regmix.reports.statistics import column_of, radii
from regmix.runs import CHECKPOINTS, METRICS
from regmix.runs.evaluations import EXAMPLES
from regmix.runs.records import Corruptions
from regmix.threats import format_eps

LINES: dict[str, Dash] = dict(zip(CHECKPOINTS, DASHES, strict=True))
"""How the checkpoints of one run are told apart in one chart."""


@dataclass(frozen=True)
class Picture:
    """One example: three images as data URIs, and the class names of its label and its two predictions."""

    clean: str
    perturbation: str
    adversarial: str
    label: str
    before: str
    after: str
    broken: bool


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run; without pictures, the text says why."""

    text: str
    pictures: list[Picture]
    factor: int = 1


@dataclass(frozen=True)
class Settings:
    """How a run came about; lists of names and values."""

    config: str
    environment: list[tuple[str, str]]
    commands: list[tuple[str, str]]
    files: list[tuple[str, str]]


def training_charts(run: LoadedRun) -> list[Chart]:
    """The curves of metrics.jsonl; those for which it has no values are left out."""
    rows = run.epochs
    if not rows:
        return []
    mark = Mark(run.best_epoch, f"best: epoch {run.best_epoch}") if run.best_epoch else None

    def chart(title: str, note: str, lines: Sequence[Series | None], percent: bool = False) -> Chart | None:
        drawn = [line for line in lines if line is not None]
        if not drawn:
            return None
        return line_chart(
            title, drawn, x_label="epoch", note=note, percent=percent, x_range=[row.epoch for row in rows], mark=mark
        )

    colours = {
        name: 1 + n % (COLOURS - 1) for n, name in enumerate(dict.fromkeys(t for row in rows for t in row.terms))
    }
    terms = [_curve(name, rows, [row.terms.get(name) for row in rows], colours[name]) for name in colours]
    total = _curve("sum", rows, [row.loss for row in rows], 0) if len(terms) > 1 else None
    plain = [
        _curve(name, rows, [row.per_example.get(name) for row in rows], colours.get(name, 0))
        for name in dict.fromkeys(term for row in rows for term in row.per_example)
    ]
    clean, averaged_clean = _validation(rows, CLEAN), _validation(rows, f"averaged_{CLEAN}")
    robust, averaged_robust = _validation(rows, "pgd"), _validation(rows, "averaged_pgd")
    train = [row.train_robust for row in rows]
    charts = [
        chart("Loss terms, weighted", "mean over the epoch", [total, *terms]),
        chart("Loss terms, unweighted", "divergence per example, before its weight", plain),
        chart(
            "Validation accuracy",
            "dashed: averaged weights" if any(value is not None for value in averaged_robust) else "",
            [
                _curve("clean", rows, clean, 1, percent=True),
                _curve("PGD", rows, robust, 2, percent=True),
                _curve("clean, averaged", rows, averaged_clean, 1, "dashed", percent=True),
                _curve("PGD, averaged", rows, averaged_robust, 2, "dashed", percent=True),
            ],
            percent=True,
        ),
        chart(
            "Robust accuracy",
            "training: under its own attack; validation: PGD",
            [
                _curve("training", rows, train, 3, percent=True),
                _curve("validation", rows, robust, 2, percent=True),
            ],
            percent=True,
        ),
        chart("Learning rate", "at the end of the epoch", [_curve("rate", rows, [row.lr for row in rows], 0)]),
    ]
    return [one for one in charts if one is not None]


def training_notes(run: LoadedRun) -> list[tuple[str, str]]:
    """What the curves cannot show: a title and a sentence in the place of the chart."""
    if not run.epochs:
        return [("No curves yet", f"{METRICS} has no epoch yet.")]
    notes = []
    if not any(row.per_example for row in run.epochs):
        notes.append(("Loss terms, unweighted", "This method has no weighted divergences."))
    if not any(row.validation for row in run.epochs):
        notes.append(("Validation accuracy", "No epoch has been validated yet, so there is no best epoch either."))
    return notes


def training_facts(run: LoadedRun) -> list[tuple[str, str]]:
    """The numbers of the training in a few lines."""
    if not run.epochs:
        return []
    last = run.epochs[-1]
    best = next((row for row in run.epochs if row.epoch == run.best_epoch), None)
    facts = [("epochs", f"{last.epoch} of {last.epochs}")]
    if best is not None:
        facts.append(("best epoch", f"{best.epoch}"))
        if best.validation and "pgd" in best.validation:
            facts.append(("validation PGD at best", words.percent(best.validation["pgd"])))
    if last.validation and "pgd" in last.validation:
        facts.append(("validation PGD at the end", words.percent(last.validation["pgd"])))
    if (seconds := run.result.train_seconds or last.seconds) is not None:
        facts.append(("time", words.duration(seconds)))
    if speeds := sorted(row.images_per_second for row in run.epochs if row.images_per_second is not None):
        facts.append(("speed (median)", f"{speeds[len(speeds) // 2]:,.0f} images/s"))
    return facts


def eps_charts(those: Sequence[Subject]) -> list[Chart]:
    """Accuracy against eps: a chart per attack, a line per run and checkpoint, clean at 0."""
    together = len(those) <= FEW
    runs = [one.run for one in those]
    charts = []
    for attack in attacks(runs):
        for shown in (CHECKPOINTS,) if together else [(name,) for name in CHECKPOINTS]:
            lines = [
                _against_eps(one, name, attack, LINES[name] if together else one.dash)
                for one in those
                for name in shown
            ]
            if drawn := [line for line in lines if line is not None]:
                title = words.attack_text(attack) + ("" if together else f", {shown[0]}")
                ticks = [(0.0, "0"), *radii(runs, attack)]
                charts.append(line_chart(title, drawn, x_label="ε", percent=True, x_ticks=ticks))
    return charts


def eps_dashes(those: Sequence[Subject]) -> dict[str, Dash]:
    """The checkpoints in the charts against eps, for one shared legend; empty where each has its own chart."""
    there = {checkpoint for one in those for checkpoint in checkpoints(one.run)}
    return {name: dash for name, dash in LINES.items() if name in there} if len(those) <= FEW else {}


def gallery(one: Subject) -> Gallery:
    """Attacked examples of the checkpoint that speaks for the run."""
    run, checkpoint = one.run, one.checkpoint
    if checkpoint is None:
        return Gallery("There are no example images, because this run has not been evaluated yet.", [])
    few = run.examples.get(checkpoint)
    if few is None:
        return Gallery(f"There are no example images: its evaluation has no {EXAMPLES}.", [])
    images = triples(few)
    if not images:
        return Gallery(f"The example images have {few.x.shape[1]} channels; only grey and RGB images are shown.", [])
    names = run.evaluations[checkpoint].subject.data.classes

    def called(index: np.int64) -> str:
        number = int(index)
        return names[number] if 0 <= number < len(names) else str(number)

    pictures = []
    rows = zip(images, few.label, few.clean_prediction, few.adversarial_prediction, strict=False)
    for (clean, perturbation, adversarial), label, before, after in rows:
        broken = bool(after != label)
        pictures.append(Picture(clean, perturbation, adversarial, called(label), called(before), called(after), broken))
    radius = next((text for eps, text in radii([run]) if same_eps(eps, few.eps)), format_eps(few.eps))
    count = sum(picture.broken for picture in pictures)
    text = (
        f"{words.attack_text(few.attack)} at {words.eps_equals(radius)} on the {checkpoint} checkpoint: "
        f"{count} of these {len(pictures)} are misclassified after the attack."
    )
    return Gallery(text, pictures, magnification(few))


def settings(run: LoadedRun) -> Settings:
    """Config, environment, commands and files of a run."""
    recorded = run.environment.command
    again = [("To repeat it from its own settings", f"regmix train --from {words.shell(run.path)} --out NEW")]
    return Settings(
        config=json.dumps(run.config, indent=2, ensure_ascii=False),
        environment=[(name, _value(value)) for name, value in run.environment.known().items() if name != "command"],
        commands=[
            *([("The command that made this run", recorded)] if recorded else []),
            *(again if run.source is None else []),
        ],
        files=[(name, words.size(count)) for name, count in run.files],
    )


def differences(runs: Sequence[LoadedRun]) -> list[tuple[str, list[str]]]:
    """The settings in which the runs differ, with a value per run."""
    flat = [_flat(run.config) for run in runs]
    names = dict.fromkeys(name for config in flat for name in config)
    rows = [(name, [config.get(name, "-") for config in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _curve(
    label: str,
    rows: Sequence[Epoch],
    values: Sequence[float | None],
    colour: int,
    dash: Dash = "solid",
    percent: bool = False,
) -> Series | None:
    there = [(row.epoch, value) for row, value in zip(rows, values, strict=True) if value is not None]
    if not there:
        return None
    xs, ys = [x for x, _ in there], [y for _, y in there]
    last = words.percent(ys[-1]) if percent else f"{ys[-1]:.3g}"
    return Series(label.replace("_", " "), xs, ys, colour, dash, last)


def _validation(rows: Sequence[Epoch], name: str) -> list[float | None]:
    return [row.validation.get(name) if row.validation else None for row in rows]


def _against_eps(one: Subject, checkpoint: str, attack: str, dash: Dash) -> Series | None:
    evaluation = one.run.evaluations.get(checkpoint)
    if evaluation is None:
        return None
    clean = column_of(evaluation, CLEAN, 0.0)
    met = sorted((c for c in evaluation.columns.values() if c.attack == attack and c.eps > 0), key=lambda c: c.eps)
    if not met:
        return None
    columns = [*([clean[1]] if clean else []), *met]
    return Series(
        f"{one.label}, {checkpoint}",
        [column.eps for column in columns],
        [column.accuracy for column in columns],
        one.colour,
        dash,
        intervals=[(column.low, column.high) for column in columns],
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: _value(value)}
    return flat


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def trust(subjects: Sequence[Subject]) -> list[tuple[Subject, list[tuple[str, bool, str, list[str]]]]]:
    """Per run and checkpoint: its name, whether all is well, the verdict in a sentence, and what else to know."""
    found = []
    for one in subjects:
        lines = []
        for name, evaluation in one.run.evaluations.items():
            notes = [f"Before the attacks: {finding}." for finding in evaluation.preflight]
            notes += [f"About the images: {note}." for note in evaluation.notes]
            for column_name, column in evaluation.columns.items():
                if column.stages:
                    stages = ", ".join(f"{100 * stage.accuracy:.1f}% after {stage.attack}" for stage in column.stages)
                    notes.append(f"{column_name}: {stages}.")
                if column.rounded is not None:
                    kept, saved = column.rounded.still_adversarial, column.rounded.images
                    notes.append(f"{column_name}: {kept} of {saved} saved images still fool the model as files.")
            masking = evaluation.masking
            if masking is not None:
                sound = masking.verdict == "no sign of masking" and not evaluation.preflight
                signs = [f"{sign}." for sign in masking.signs]
                lines.append((name, sound, words.VERDICTS[masking.verdict], [*signs, *notes]))
            elif notes:
                lines.append((name, not evaluation.preflight, "Gradient masking was not probed.", notes))
        if lines:
            found.append((one, lines))
    return found


@dataclass(frozen=True)
class CorruptionTable:
    """The corruptions that one checkpoint met: cells as text, the mean over severities first."""

    checkpoint: str
    header: list[str]
    rows: list[list[str]]
    source: str


def corruptions(subjects: Sequence[Subject]) -> list[tuple[Subject, CorruptionTable]]:
    """Per run that has met any: the checkpoint by which it is judged, or else the first that has."""
    found = []
    for one in subjects:
        there = {name: e.corruptions for name, e in one.run.evaluations.items() if e.corruptions}
        if not there:
            continue
        name = one.checkpoint if one.checkpoint in there else next(iter(there))
        found += [(one, _corruption_table(name, those)) for those in there[name]]
    return found


def _corruption_table(checkpoint: str, those: Corruptions) -> CorruptionTable:
    severities = sorted({severity for row in those.accuracy.values() for severity in row})
    rows = [(words.corruption_text(kind), [row.get(s) for s in severities]) for kind, row in those.accuracy.items()]
    columns = [*zip(*(values for _, values in rows), strict=True)]
    rows.append(("Mean of all", [_mean(column) if None not in column else None for column in columns]))
    numbers = [(kind, [_mean(values), *values]) for kind, values in rows]
    cells = [[kind, *("" if v is None else f"{100 * v:.1f}" for v in values)] for kind, values in numbers]
    source = "computed here" if those.source == "computed" else f"from the files in {those.source}"
    return CorruptionTable(checkpoint, ["Corruption", "mean", *map(str, severities)], cells, source)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
