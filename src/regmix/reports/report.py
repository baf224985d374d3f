"""Puts the sections together and writes the page."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from regmix import __version__
from regmix.reports import comparison, details, page, words
from regmix.reports.load import LoadedRun, aligned, checkpoints, load
from regmix.runtime.files import write_atomically
from regmix.types import UserError

DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
MARKS = "\u061c\u200e\u200f"
"""Those that turn the direction of writing, beside the characters of these kinds."""


def write_report(runs: Sequence[Path], output: Path) -> None:
    """Writes one self-contained HTML file about one or several runs; it loads nothing from anywhere.

    The run directories are only read. What they do not hold yet (an evaluation, averaged weights, epochs) is replaced
    by a sentence that says so.

    Raises:
        UserError: no run, a folder that is no run directory, a damaged file, or an output folder that does not exist.
    """
    if not runs:
        raise UserError("a report needs at least one run directory")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent} does not exist; make that folder first or write the report elsewhere")
    if output.is_dir():
        raise UserError(f"{output} is a folder; give the name of a file such as {output / 'report.html'}")
    text = render(aligned([load(path) for path in runs]))
    write_atomically(output, lambda file: file.write(text.encode()))


def render(runs: Sequence[LoadedRun]) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    arms = comparison.arms(runs)
    seeds = max(len(arm.runs) for arm in arms)
    if seeds > 1:
        runs = [arm.runs[0] for arm in arms]
    subjects = page.subjects(runs)
    threats: dict[str, list[str]] = {}
    for one in subjects:
        threats.setdefault(words.threat_text(one.run), []).append(one.label)
    averaged = any("averaged" in checkpoints(run) for run in runs)
    return environment.get_template("report.html").render(
        version=__version__,
        subjects=subjects,
        summary=_seed_summary(arms, subjects) if seeds > 1 else page.summary(subjects),
        seeds=seeds,
        seed_table=comparison.table(arms) if seeds > 1 else [],
        seed_doubts=comparison.doubts(arms) if seeds > 1 else [],
        seed_differences=comparison.difference_lines(arms) if seeds > 1 else [],
        threats=threats,
        selection=words.selection_text(runs),
        checkpoint_texts=[(name, words.CHECKPOINT_TEXTS[name]) for name in ("best", "last")]
        + ([("averaged", words.CHECKPOINT_TEXTS["averaged"])] if averaged else []),
        honesty=" ".join([words.honesty_text(page.attacks(runs)), *page.notes(runs)]),
        tables=[page.table(one) for one in subjects],
        headlines=[page.headline(one) for one in subjects],
        overview=page.overview(subjects),
        comparisons=page.comparisons(subjects),
        gaps=[page.gap(one) for one in subjects],
        curves=[
            (details.training_charts(run), details.training_notes(run), details.training_facts(run)) for run in runs
        ],
        eps_charts=details.eps_charts(subjects),
        dashes=details.eps_dashes(subjects),
        galleries=[details.gallery(one) for one in subjects],
        settings=[details.settings(run) for run in runs],
        differences=details.differences(runs),
        others=[page.others(one.run) for one in subjects],
        trust=details.trust(subjects),
        corruptions=details.corruptions(subjects),
        words=words,
    )


def visible(value: object) -> object:
    """Shows characters in a text that would hide, or change the order of, those beside them as their code: \\u202e.

    Such are control characters, line separators and those that turn the direction of writing. What the template has
    made itself, and what is no text, stays as it is.
    """
    if not isinstance(value, str) or hasattr(value, "__html__") or (value.isascii() and value.isprintable()):
        return value
    return "".join(f"\\u{ord(each):04x}" if _hides(each) else each for each in value)


def _hides(character: str) -> bool:
    turns = unicodedata.bidirectional(character) in DIRECTIONS or character in MARKS
    return turns or (unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") and character not in "\n\t")


def _seed_summary(arms: Sequence[comparison.Arm], subjects: Sequence[page.Subject]) -> list[str]:
    sentences = []
    for checkpoint, columns in list(comparison.shared_columns(arms).items())[:1]:
        for column in columns:
            if column == subjects[0].column_name(checkpoint):
                sentences.append(comparison.summary(arms, checkpoint, column, subjects[0].where))
    first = subjects[0].run.seed
    return [*sentences, f"All numbers below the first table are those of single runs, of seed {first}."]
