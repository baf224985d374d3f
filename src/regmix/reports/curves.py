"""The report's line charts, and what stands beside them: training curves and accuracy against eps."""

import math
from collections.abc import Sequence

from regmix.evaluation import CLEAN
from regmix.reports import words
from regmix.reports.charts import COLOURS, DASHES, Chart, Dash, Mark, Series, line_chart, nice, texts
from regmix.reports.load import Epoch, LoadedRun, checkpoints
from regmix.reports.remarks import attacks
from regmix.reports.statistics import column_of, radii
from regmix.reports.subject import FEW, Subject
from regmix.runs import CHECKPOINTS, METRICS

LINES: dict[str, Dash] = dict(zip(CHECKPOINTS, DASHES, strict=True))
"""Line style of each checkpoint, where one chart shows several checkpoints of a run."""


def training_charts(run: LoadedRun) -> list[Chart]:
    """Charts of the values in metrics.jsonl; charts without values are left out."""
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
        chart("Loss terms, unweighted", "mean divergence per example, before weighting", plain),
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
            "training: under the training attack; validation: under PGD",
            [
                _curve("training", rows, train, 3, percent=True),
                _curve("validation", rows, robust, 2, percent=True),
            ],
            percent=True,
        ),
        chart("Learning rate", "at the end of the epoch", [_curve("rate", rows, [row.lr for row in rows], 0)]),
    ]
    return [drawn for drawn in charts if drawn is not None]


def training_notes(run: LoadedRun) -> list[tuple[str, str]]:
    """A title and a sentence for each chart that has no values."""
    if not run.epochs:
        return [("No curves yet", f"{METRICS} has no epoch yet.")]
    notes = []
    if not any(row.per_example for row in run.epochs):
        notes.append(("Loss terms, unweighted", "This method has no divergences with a weight."))
    if not any(row.validation for row in run.epochs):
        notes.append(("Validation accuracy", "No epoch has been validated yet, so there is no best epoch either."))
    return notes


def training_facts(run: LoadedRun) -> list[tuple[str, str]]:
    """The main numbers of the training: names and values."""
    if not run.epochs:
        return []
    last = run.epochs[-1]
    best = next((row for row in run.epochs if row.epoch == run.best_epoch), None)
    facts = [("epochs", f"{last.epoch} of {last.epochs}")]
    if best is not None:
        facts.append(("best epoch", f"{best.epoch}"))
        if best.pgd is not None:
            accuracy = best.pgd if run.result.best_pgd is None else run.result.best_pgd  # of averaged weights, maybe
            facts.append(("validation PGD at best", words.percent(accuracy)))
    if last.pgd is not None:
        facts.append(("validation PGD at the end", words.percent(last.pgd)))
    if (seconds := run.result.train_seconds or last.seconds) is not None:
        facts.append(("time", words.duration(seconds)))
    if speeds := sorted(row.images_per_second for row in run.epochs if row.images_per_second is not None):
        facts.append(("speed (median)", f"{speeds[len(speeds) // 2]:,.0f} images/s"))
    return facts


def eps_charts(those: Sequence[Subject]) -> list[Chart]:
    """Accuracy against eps: one chart per attack and norm, one line per run and checkpoint; at 0 the clean accuracy."""
    together = len(those) <= FEW
    norms = dict.fromkeys(subject.run.norm for subject in those)
    alike = [[subject for subject in those if subject.run.norm == norm] for norm in norms]
    return [chart for subjects in alike for chart in _eps_charts(subjects, together)]


def _eps_charts(those: Sequence[Subject], together: bool) -> list[Chart]:
    runs = [subject.run for subject in those]
    norm = f" in {those[0].norm}" if those[0].norm else ""
    charts = []
    for attack in attacks(runs):
        for shown in (CHECKPOINTS,) if together else [(name,) for name in CHECKPOINTS]:
            lines = [
                _against_eps(subject, name, attack, LINES[name] if together else subject.dash)
                for subject in those
                for name in shown
            ]
            if drawn := [line for line in lines if line is not None]:
                title = words.attack_text(attack) + norm + ("" if together else f", {shown[0]}")
                ticks = [(0.0, "0"), *radii(runs, attack)]
                charts.append(line_chart(title, drawn, x_label="ε", percent=True, x_ticks=ticks))
    return charts


def distance_charts(those: Sequence[Subject]) -> list[Chart]:
    """Accuracy against eps from smallest perturbations: one chart per run and checkpoint, with its 95 % interval."""
    charts = []
    for subject in those:
        for checkpoint, evaluation in subject.run.evaluations.items():
            if (known := evaluation.curve) is None:
                continue
            weights = words.checkpoint_name(subject.run, checkpoint)
            ends: list[tuple[Sequence[float], Dash]] = [(known.low, "dotted"), (known.high, "dotted")]
            lines = [Series("accuracy", known.eps, known.accuracy, subject.colour)]
            lines += [Series("95 % interval", known.eps, values, subject.colour, dash) for values, dash in ends]
            ticks = nice(0.0, known.eps[-1])
            charts.append(
                line_chart(
                    f"{subject.label}, {weights}", lines, x_label="ε", percent=True, note=words.curve_text(known),
                    x_ticks=[(x, text) for x, text in zip(ticks, texts(ticks), strict=True) if x <= known.eps[-1]],
                )
            )  # fmt: skip
    return charts


def query_charts(those: Sequence[Subject]) -> list[Chart]:
    """Success of black-box attacks against the queries that they ask: one chart per run, checkpoint and column."""
    charts = []
    for subject in those:
        for checkpoint, evaluation in subject.run.evaluations.items():
            weights = words.checkpoint_name(subject.run, checkpoint)
            for name, column in evaluation.columns.items():
                if (known := column.queries) is None:
                    continue
                half = "not reached" if known.median is None else f"{known.median:,} queries"
                note = f"broken images, of those attacked; half of them: {half}; at most {known.budget:,} queries"
                places = {number: math.log10(number) for number in known.queries}
                ticks = [(place, f"{number:,}") for number, place in places.items() if str(number).rstrip("0") == "1"]
                line = Series("broken", [*places.values()], known.broken, subject.colour)
                charts.append(
                    line_chart(
                        f"{subject.label}, {weights}, {name}", [line], x_label="queries (logarithmic)",
                        percent=True, note=note, x_ticks=ticks,
                    )
                )  # fmt: skip
    return charts


def eps_dashes(those: Sequence[Subject]) -> dict[str, Dash]:
    """Line styles of the checkpoints in the charts against eps, for one legend; empty if each has its own chart.

    A model from elsewhere has no checkpoints to tell apart.
    """
    trained = [subject.run for subject in those if subject.run.source is None]
    evaluated = {checkpoint for run in trained for checkpoint in checkpoints(run)}
    return {name: dash for name, dash in LINES.items() if name in evaluated} if len(those) <= FEW else {}


def _curve(
    label: str,
    rows: Sequence[Epoch],
    values: Sequence[float | None],
    colour: int,
    dash: Dash = "solid",
    percent: bool = False,
) -> Series | None:
    points = [(row.epoch, value) for row, value in zip(rows, values, strict=True) if value is not None]
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    last = words.percent(ys[-1]) if percent else f"{ys[-1]:.3g}"
    return Series(label.replace("_", " "), xs, ys, colour, dash, last)


def _validation(rows: Sequence[Epoch], name: str) -> list[float | None]:
    return [row.validation.get(name) if row.validation else None for row in rows]


def _against_eps(subject: Subject, checkpoint: str, attack: str, dash: Dash) -> Series | None:
    evaluation = subject.run.evaluations.get(checkpoint)
    if evaluation is None:
        return None
    clean = column_of(evaluation, CLEAN, 0.0)
    attacked = sorted((c for c in evaluation.columns.values() if c.attack == attack and c.eps > 0), key=lambda c: c.eps)
    if not attacked:
        return None
    columns = [*([clean[1]] if clean else []), *attacked]
    return Series(
        f"{subject.label}, {words.checkpoint_name(subject.run, checkpoint)}",
        [column.eps for column in columns],
        [column.accuracy for column in columns],
        subject.colour,
        dash,
        intervals=[(column.low, column.high) for column in columns],
    )
