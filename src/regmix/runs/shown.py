"""A run directory as a few lines of text, and as HTML for notebooks: what was trained, and what was measured."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pydantic import JsonValue

from regmix.runs.records import Checkpoint, Column, Evaluation, went_back

if TYPE_CHECKING:
    from regmix.runs.directory import Run

REPORT = "report.html"


class Table(NamedTuple):
    """Accuracies on the same images."""

    images: str
    checkpoints: list[str]
    rows: list[list[str]]
    """The attack, then the accuracy of every checkpoint."""
    notes: list[str]


def as_text(run: "Run") -> str:
    """A run in lines of plain text."""
    lines = [f"Run {run.path}: {headline(run)}"]
    for table in tables(run):
        lines.append(f"  accuracy on {table.images}, in percent, with 95 % intervals")
        grid = [["", *table.checkpoints], *table.rows]
        widths = [max(len(row[place]) for row in grid) for place in range(len(grid[0]))]
        lines += [
            "    " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in grid
        ]
        lines += [f"    {note}" for note in table.notes]
    return "\n".join([*lines, *(f"  {remark}" for remark in remarks(run))])


def as_html(run: "Run") -> str:
    """The same for a notebook."""
    parts = [f"<p><b>Run {escape(str(run.path))}</b>: {escape(headline(run))}</p>"]
    for table in tables(run):
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", *table.checkpoints))
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        parts.append(f"<p>Accuracy on {escape(table.images)}, in percent, with 95 % intervals</p>")
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        parts += [f"<p>{escape(note)}</p>" for note in table.notes]
    parts += [f"<p>{escape(remark)}</p>" for remark in remarks(run)]
    report = run.path / REPORT
    if report.is_file():
        parts.append(f'<p><a href="{escape(str(report))}" target="_blank">Open the report</a></p>')
    return "\n".join(parts)


def headline(run: "Run") -> str:
    """Method, data, model, threat and length of the training."""
    result, settings, source = run.result(), run.settings(), run.environment().source
    on = f"{_name(settings, 'data')}, {_name(settings, 'model')}"
    if source is not None:
        return f"a model from elsewhere, {source}, on {on}"
    rows = run.metrics()
    done, planned = (rows[-1].epoch, rows[-1].epochs) if rows else (0, settings.get("epochs"))
    threat: Any = settings.get("threat")
    eps = f" at eps {threat['eps']:.4g}" if isinstance(threat, dict) and "eps" in threat else ""
    state = "finished" if result.status == "finished" else result.status or "not finished"
    trained = f"{_name(settings, 'method')} on {on}, {_name(settings, 'threat')}{eps}"
    return f"{trained}; {done} of {planned} epochs, {state}"


def remarks(run: "Run") -> Iterator[str]:
    """What else the reader must know, and where the report is."""
    result = run.result()
    if not any(not stored.outdated for stored in run.evaluations()):
        yield f'not evaluated yet: regmix.evaluate_run("{run.path}")'
        if result.best_pgd is not None:
            yield f"PGD-10 accuracy of the best weights on the validation images: {100 * result.best_pgd:.1f}%"
    back = iter(went_back(run.metrics(), result.alarms))
    for alarm in result.alarms:
        did = {"continue": "", "stop": "; the guard stopped the training"}
        undone = did[alarm.action] if alarm.action in did else f"; back to epoch {next(back)}, with another method"
        yield f"alarm after epoch {alarm.epoch}: {alarm.reason}{undone}"
    yield from result.warnings
    report = run.path / REPORT
    yield f"report: {report}" if report.is_file() else f'no report here yet: regmix.report("{run.path}")'


def tables(run: "Run") -> list[Table]:
    """A table for each set of images on which the run's present weights were evaluated."""
    groups: dict[object, list[Evaluation]] = {}
    for stored in run.evaluations():
        if not stored.outdated:
            groups.setdefault(stored.evaluation.images, []).append(stored.evaluation)
    return [_table(group) for group in groups.values()]


def _table(evaluations: Sequence[Evaluation]) -> Table:
    by_checkpoint = {evaluation.subject.checkpoint: evaluation for evaluation in evaluations}  # the latest counts
    shown = {name: by_checkpoint[name] for name in get_args(Checkpoint) if name in by_checkpoint}
    columns = dict.fromkeys(name for evaluation in shown.values() for name in evaluation.columns)
    rows = [[name, *(_cell(evaluation.columns.get(name)) for evaluation in shown.values())] for name in columns]
    notes = dict.fromkeys(note for evaluation in shown.values() for note in evaluation.about_images)
    for name, evaluation in shown.items():
        notes |= dict.fromkeys(f"{name}: {finding}" for finding in evaluation.preflight)
        if evaluation.masking is not None:
            notes[f"{name}: gradient masking: {evaluation.masking.verdict}"] = None
    first = next(iter(shown.values()))
    return Table(first.sample_text() + first.subject.passes, [*shown], rows, [*notes])


def _cell(column: Column | None) -> str:
    """An accuracy with its interval, in percent."""
    if column is None:
        return "-"
    return f"{100 * column.accuracy:.1f} [{100 * column.low:.1f}, {100 * column.high:.1f}]"


def _name(settings: dict[str, JsonValue], part: str) -> str:
    value = settings.get(part)
    return str(value.get("name", "?")) if isinstance(value, dict) else "?"
