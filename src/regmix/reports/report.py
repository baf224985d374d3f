"""Assembles the sections of the report and writes the HTML file."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from regmix import __version__
from regmix.reports import comparison, curves, details, image_sets, page, remarks, words
from regmix.reports.classes import per_class
from regmix.reports.findings import find
from regmix.reports.gap import gap
from regmix.reports.load import LoadedRun, aligned, checkpoints, load
from regmix.reports.opening import opening
from regmix.reports.place import check_places
from regmix.reports.subject import Subject, subjects_of
from regmix.runs.records import Images
from regmix.runtime.files import write_text
from regmix.types import UserError

DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
MARKS = "\u061c\u200e\u200f"
"""Invisible characters that change the direction of writing, in addition to those of the kinds in DIRECTIONS."""


def write_report(runs: Sequence[Path], output: Path, images: Images | None = None) -> None:
    """Writes one self-contained HTML file about one or several runs; `images` as in `aligned`.

    The run directories are only read. If something is missing there (an evaluation, averaged weights, epochs), the
    report says so.

    Raises:
        UserError: no run, a folder that is not a run directory, a damaged file, a missing output folder, or a file
            there that is no report.
    """
    if not runs:
        raise UserError("a report needs at least one run directory")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent} does not exist; create that folder first, or write the report elsewhere")
    check_places([output])
    text = render(aligned([load(path) for path in runs], images))
    write_text(output, text)


def templates() -> Environment:
    """The templates of this folder; text in them is escaped, and made visible."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(runs: Sequence[LoadedRun]) -> str:
    """The HTML text of the report."""
    arms, image_notes = comparison.arms(runs), image_sets.notes(runs)
    seeds = max(len(arm.runs) for arm in arms)
    if seeds > 1:
        runs = [arm.runs[0] for arm in arms]
    subjects = subjects_of(runs)
    threats: dict[str, list[str]] = {}
    for subject in subjects:
        threats.setdefault(words.threat_text(subject.run, subject.eps), []).append(subject.label)
    averaged = any("averaged" in checkpoints(run) for run in runs)
    findings, classes = find(subjects), [per_class(subject) for subject in subjects]
    template = templates().get_template("report.html")
    return template.render(
        version=__version__,
        subjects=subjects,
        summary=(_seed_summary(arms, subjects) if seeds > 1 else page.summary(subjects)) + words.norms_texts(runs),
        image_notes=image_notes,
        opening=opening(subjects, arms, classes, findings),
        seeds=seeds,
        seed_table=comparison.table(arms) if seeds > 1 else [],
        seed_doubts=comparison.doubts(arms) if seeds > 1 else [],
        seed_differences=comparison.difference_lines(arms) if seeds > 1 else [],
        threats=threats,
        trained=any(run.source is None for run in runs),
        selection=words.selection_text(runs),
        checkpoint_texts=[
            (name, text)
            for name in ("best", "last", *(["averaged"] if averaged else []))
            for text in dict.fromkeys(words.checkpoint_text(run, name) for run in runs)
        ],
        limits=" ".join([remarks.limits(subjects), *comparison.no_seeds(arms)]),
        intervals_note=remarks.intervals(runs),
        tables=[page.table(subject) for subject in subjects],
        headlines=[page.headline(subject) for subject in subjects],
        overview=page.overview(subjects),
        comparisons=page.comparisons(subjects),
        gaps=[gap(subject) for subject in subjects],
        curves=[(curves.training_charts(run), curves.training_notes(run), curves.training_facts(run)) for run in runs],
        eps_charts=curves.eps_charts(subjects),
        dashes=curves.eps_dashes(subjects),
        distance_charts=curves.distance_charts(subjects),
        query_charts=curves.query_charts(subjects),
        galleries=[details.gallery(subject) for subject in subjects],
        loss_surfaces=[details.loss_surfaces(subject) for subject in subjects],
        settings=[details.settings(run) for run in runs],
        differences=details.differences(runs),
        others=[image_sets.others(subject.run) for subject in subjects],
        trust=details.trust(subjects),
        corruptions=details.corruptions(subjects),
        findings=findings,
        evidence=details.evidence,
        classes=classes,
        confusions=details.confusions,
        breaking=details.breaking,
        words=words,
    )


def visible(value: object) -> object:
    """Replaces characters that would hide or reorder their neighbours by their code, such as \\u202e.

    These are control characters, line separators and characters that change the direction of writing. Markup of the
    template and values other than text stay as they are.
    """
    if not isinstance(value, str) or hasattr(value, "__html__") or (value.isascii() and value.isprintable()):
        return value
    return "".join(f"\\u{ord(character):04x}" if _hides(character) else character for character in value)


def _hides(character: str) -> bool:
    reorders = unicodedata.bidirectional(character) in DIRECTIONS or character in MARKS
    return reorders or (unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") and character not in "\n\t")


def _seed_summary(arms: Sequence[comparison.Arm], subjects: Sequence[Subject]) -> list[str]:
    sentences = []
    for checkpoint, columns in list(comparison.shared_columns(arms).items())[:1]:
        for column in columns:
            if column == subjects[0].column_name(checkpoint):
                sentences.append(comparison.summary(arms, checkpoint, column, subjects[0].where))
    seeds = dict.fromkeys(subject.run.seed for subject in subjects)
    whose = (
        f"those of seed {subjects[0].run.seed}"
        if len(seeds) == 1
        else words.listed([f"{subject.label} with seed {subject.run.seed}" for subject in subjects])
    )
    return [*sentences, f"All numbers below the first table are from single runs, {whose}."]
