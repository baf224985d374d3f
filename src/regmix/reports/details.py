"""The report's example images, settings, checks and corruptions, as plain values."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regmix.reports import words
from regmix.reports.classes import Broken, Classes
from regmix.reports.findings import Finding
from regmix.reports.images import data_uri, magnification, triples
from regmix.reports.load import LoadedRun
from regmix.reports.statistics import radii
from regmix.reports.subject import Subject
from regmix.reports.surfaces import Surfaces, surfaces
from regmix.runs.evaluations import EXAMPLES
from regmix.runs.records import Corruptions
from regmix.runtime.files import flat
from regmix.threats import format_eps, same_eps


@dataclass(frozen=True)
class Picture:
    """One example: three images as data URIs, and the class names of its label and of its two predictions."""

    clean: str
    perturbation: str
    adversarial: str
    label: str
    before: str
    after: str
    broken: bool


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run. If there are none, the text says why."""

    text: str
    pictures: list[Picture]
    factor: int = 1


@dataclass(frozen=True)
class Settings:
    """How a run was made: pairs of names and values."""

    config: str
    environment: list[tuple[str, str]]
    commands: list[tuple[str, str]]
    files: list[tuple[str, str]]


def gallery(subject: Subject) -> Gallery:
    """Attacked examples of the checkpoint by which the run is judged."""
    run, checkpoint = subject.run, subject.checkpoint
    if checkpoint is None:
        return Gallery("There are no example images, because this run has not been evaluated yet.", [])
    examples = run.examples.get(checkpoint)
    if examples is None:
        return Gallery(f"There are no example images, because the evaluation has no {EXAMPLES}.", [])
    images = triples(examples)
    if not images:
        return Gallery(f"The examples have {examples.x.shape[1]} channels; only grey and RGB images are shown.", [])
    names = run.evaluations[checkpoint].subject.data.classes

    pictures = []
    rows = zip(images, examples.label, examples.clean_prediction, examples.adversarial_prediction, strict=False)
    for pixels, label, before, after in rows:
        predictions = _class_name(names, label), _class_name(names, before), _class_name(names, after)
        pictures.append(Picture(*pixels, *predictions, broken=bool(after != label)))
    radius = next((text for eps, text in radii([run]) if same_eps(eps, examples.eps)), format_eps(examples.eps))
    count = sum(picture.broken for picture in pictures)
    weights = words.checkpoint_phrase(run, checkpoint)
    text = (
        f"{words.attack_text(examples.attack)} at {words.eps_equals(radius)} on the {weights}: "
        f"{count} of these {len(pictures)} images are misclassified after the attack."
    )
    return Gallery(text, pictures, magnification(examples))


def _class_name(names: Sequence[str], number: float) -> str:
    """The name of a class of a file of arrays, which may be damaged."""
    return names[int(number)] if 0 <= number < len(names) else str(int(number))


def loss_surfaces(subject: Subject) -> Surfaces | None:
    """The loss around an example image that the attack breaks and one that it does not break; None: not measured."""
    few = subject.run.surfaces.get(subject.checkpoint or "")
    if few is None or not np.isfinite(few.loss).any():
        return None
    names = subject.run.evaluations[subject.checkpoint or ""].subject.data.classes
    rows = zip(few.index.tolist(), few.label.tolist(), few.broken.tolist(), few.loss.tolist(), strict=True)
    return surfaces(
        "Loss around two test images" if len(few.index) == 2 else "Loss around a test image",
        [
            (f"{index}: {_class_name(names, label)}, {'broken' if gone else 'not broken'}", loss)
            for index, label, gone, loss in rows
        ],
        few.steps.tolist(), x_label="steepest direction / ε", y_label="random direction / ε",
    )  # fmt: skip


def settings(run: LoadedRun) -> Settings:
    """Config, environment, commands and files of a run."""
    recorded = run.environment.command
    again = [("To repeat this run with the same settings", f"regmix train --from {words.run_words(run)} --out NEW")]
    return Settings(
        config=json.dumps(run.config, indent=2, ensure_ascii=False),
        environment=[(name, _value(value)) for name, value in run.environment.known().items() if name != "command"],
        commands=[
            *([("Command of this run", recorded)] if recorded else []),
            *(again if run.source is None else []),
        ],
        files=[(name, words.size(count)) for name, count in run.files],
    )


def differences(runs: Sequence[LoadedRun]) -> list[tuple[str, list[str]]]:
    """The settings in which the runs differ, with one value per run."""
    settings = [{name: _value(value) for name, value in flat(run.config).items()} for run in runs]
    names = dict.fromkeys(name for config in settings for name in config)
    rows = [(name, [config.get(name, "-") for config in settings]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def trust(subjects: Sequence[Subject]) -> list[tuple[Subject, list[tuple[str, bool, str, list[str]]]]]:
    """Per run and checkpoint: its name, whether the checks passed, the verdict in a sentence, and further notes."""
    verdicts = []
    for subject in subjects:
        lines = []
        for name, evaluation in subject.run.evaluations.items():
            notes = [f"Before the attacks: {finding}." for finding in evaluation.preflight]
            notes += [f"About the images: {note}." for note in evaluation.about_images]
            for column_name, column in evaluation.columns.items():
                if column.stages:
                    stages = ", ".join(f"{100 * stage.accuracy:.1f}% after {stage.attack}" for stage in column.stages)
                    notes.append(f"{column_name}: {stages}.")
                if column.rounded is not None:
                    kept, saved = column.rounded.still_adversarial, column.rounded.images
                    notes.append(
                        f"{column_name}: {kept} of {saved} saved images still fool the model after rounding to whole "
                        "grey levels."
                    )
            masking = evaluation.masking
            if masking is not None:
                sound = masking.verdict == "no sign of masking" and not evaluation.preflight
                signs = [f"{sign}." for sign in masking.signs]
                signs += [f"Found on {masking.images}."] if masking.images else []
                lines.append((name, sound, words.VERDICTS[masking.verdict], [*signs, *notes]))
            elif notes:
                lines.append((name, not evaluation.preflight, "Gradient masking was not checked.", notes))
        if lines:
            verdicts.append((subject, lines))
    return verdicts


@dataclass(frozen=True)
class CorruptionTable:
    """The accuracies of one checkpoint under corruptions: cells as text, the mean over all severities first.

    A corruption that was not measured at all of the table's severities has no mean, which could not be compared.
    """

    checkpoint: str
    header: list[str]
    rows: list[list[str]]
    source: str


def corruptions(subjects: Sequence[Subject]) -> list[tuple[Subject, CorruptionTable]]:
    """The tables of every run evaluated under corruptions, for the checkpoint by which it is judged if possible."""
    tables = []
    for subject in subjects:
        evaluated = {name: e.corruptions for name, e in subject.run.evaluations.items() if e.corruptions}
        if not evaluated:
            continue
        name = subject.checkpoint if subject.checkpoint in evaluated else next(iter(evaluated))
        tables += [(subject, _corruption_table(name, those)) for those in evaluated[name]]
    return tables


def _corruption_table(checkpoint: str, those: Corruptions) -> CorruptionTable:
    severities = sorted({severity for row in those.accuracy.values() for severity in row})
    rows = [(words.corruption_text(kind), [row.get(s) for s in severities]) for kind, row in those.accuracy.items()]
    columns = [*zip(*(values for _, values in rows), strict=True)]
    rows.append(("Mean of all", [_mean(column) for column in columns]))
    numbers = [(kind, [_mean(values), *values]) for kind, values in rows]
    cells = [[kind, *("" if v is None else f"{100 * v:.1f}" for v in values)] for kind, values in numbers]
    source = "computed here" if those.source == "computed" else f"from the files in {those.source}"
    return CorruptionTable(checkpoint, ["Corruption", "mean", *map(str, severities)], cells, source)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def evidence(finding: Finding) -> list[tuple[str, str]]:
    """The numbers of a finding as pairs of texts."""
    return [(number.what, number.text) for number in finding.evidence]


def confusions(classes: Classes) -> list[tuple[str, str]]:
    """The most frequent confusions under attack as pairs of texts."""
    return [(f"{pair.label} taken for {pair.taken_for}", f"{pair.images} of {pair.of}") for pair in classes.pairs]


def breaking(subject: Subject, images: Sequence[Broken]) -> list[tuple[str | None, str, str, str]]:
    """Images that break first or last: a thumbnail as data URI, position and class, file, when they break, as texts."""
    few = subject.run.thumbnails.get(subject.checkpoint or "")
    shown = few is not None and few.pixels.shape[1] in (1, 3)
    pixels = dict(zip(few.index.tolist(), few.pixels, strict=True)) if few is not None and shown else {}
    rows = []
    for image in images:
        taken = f", as {image.taken_for}" if image.taken_for is not None else ""
        when = "never" if image.eps is None else f"at {words.eps_equals(format_eps(image.eps))}{taken}"
        picture = data_uri(pixels[image.index]) if image.index in pixels else None
        rows.append((picture, f"{image.index}: {image.label}", image.file or "", when))
    return rows
