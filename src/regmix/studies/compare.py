"""The parts of `regmix compare`: parsing methods, what may be compared, writing the results."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from rich.console import Console
from rich.table import Table

from regmix.config import UNIONS, Experiment, to_json
from regmix.reports import comparison, remarks, write_report
from regmix.reports.load import aligned, load
from regmix.runs.records import Images
from regmix.runtime.files import flat, write_text
from regmix.shorthand import with_settings
from regmix.studies.trainings import say
from regmix.types import UserError, known

OUTPUTS = ("comparison.json", "report.html")
"""What a comparison writes into its folder."""


def method_words(text: str) -> list[str]:
    """The flags of `regmix train` for a text such as pgd_at:steps=2:start=corner.

    A name that is not a field of the method is a flag of the experiment, as in fgsm_pgk:averaging=gated_ema.

    Raises:
        UserError: an unknown method, an unknown setting, or one that is not of the form FIELD=VALUE.
    """
    name, settings = with_settings(text, "--methods")
    fields = UNIONS["method"][known(name, UNIONS["method"], "method")].__dataclass_fields__
    flags = ["--method", name]
    for field, value in settings.items():
        root = field.split(".")[0].replace("-", "_")
        if root in ("seed", "device"):
            raise UserError(f"--methods {text}: all methods have the same seeds and device; set --seeds and --device")
        if root not in fields and root not in Experiment.__dataclass_fields__:
            names = [each.replace("_", "-") for each in fields if each != "name"]
            others = {*Experiment.__dataclass_fields__} - {"seed", "device"}
            meant = get_close_matches(field, [*names, *sorted(others)], 1)
            has = f"did you mean {meant[0]}?" if meant else f"it has: {', '.join(names) or 'none'}"
            raise UserError(f"--methods {text}: neither {name} nor the training has a setting {field}; {has}")
        flag = ("--method." if root in fields else "--") + field
        flags += [flag.replace("_", "-"), value]
    return flags


def overridden(words: Sequence[str], by: Sequence[str]) -> list[str]:
    """The flags of `words`, less those that `by` gives anew, and then those of `by`.

    Another kind of a part, such as --averaging none, takes the settings of the old kind with it.
    """
    shared, own = _values(words), _values(by)
    replaced = {flag for flag in own if flag in shared and shared[flag] != own[flag]}
    kept, keep = list[str](), True
    for word in words:
        if word.startswith("--"):
            keep = _flag(word) not in own and _flag(word).partition(".")[0] not in replaced
        if keep:
            kept.append(word)
    return [*kept, *by]


def _flag(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _values(words: Sequence[str]) -> dict[str, str]:
    """The flags among words, each with its value or the first of its values."""
    following = [*words, ""][1:]
    return {
        _flag(word): word.partition("=")[2] or after
        for word, after in zip(words, following, strict=True)
        if word.startswith("--")
    }


MEASURE = ("threat", "data", "validation", "split_seed", "validate_every", "best_of", "precision")
"""Fields of an Experiment that change how the best validation accuracy is measured: the attack, the images, the
precision, or among how many weights the best is chosen. train_examples is not one of them, because it does not change
the validation images."""


def check_ranking(experiments: Sequence[Experiment]) -> None:
    """Raises UserError if the experiments measure validation accuracy differently, so that no ranking is possible."""
    if name := _differing(experiments, MEASURE):
        raise UserError(
            f"--space: {name} changes how the points are measured (best PGD-10 accuracy on the validation images), so "
            f"they cannot be ranked; give one --{name.replace('_', '-')} for all"
        )


def check_comparison(experiments: Sequence[Experiment], eps: Sequence[float]) -> None:
    """Raises UserError if the runs would be evaluated on different test images or under different threats.

    Args:
        eps: the radii of the evaluation; empty means the radius of each training.
    """
    if name := _differing(experiments, ("data",)):
        raise UserError(f"--methods: {name} may change the test images; give one --{name} for all methods")
    if name := _differing(experiments, ("threat",)):
        if len({type(experiment.threat) for experiment in experiments}) > 1:
            raise UserError("--methods: the methods differ in the norm of their threat; give one --threat for all")
        if not eps:
            raise UserError(
                f"--methods: {name} differs, so each method would be attacked at another radius; "
                "give the radii for all with --eps, such as --eps 8/255"
            )


def _differing(experiments: Sequence[Experiment], fields: Sequence[str]) -> str | None:
    """The name in config.json of the first setting in these fields that differs between the experiments."""
    settings = [flat(json.loads(to_json(experiment))) for experiment in experiments]
    names = dict.fromkeys(name for values in settings for name in values if name.split(".")[0] in fields)
    different = (name for name in names if any(values.get(name) != settings[0].get(name) for values in settings))
    return next((name.removesuffix(".name") for name in different), None)


def write_comparison(paths: Sequence[Path], images: Images, out: Path, console: Console) -> str:
    """Prints the table and the paired differences, and writes comparison.json and report.html into the folder `out`.

    images: those that were asked for; earlier evaluations may be on others.

    Returns the content of comparison.json.
    """
    arms = comparison.arms(aligned([load(path) for path in paths], images))
    header, *rows = comparison.table(arms)
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    runs = [run for arm in arms for run in arm.runs]
    for note in (f"Of {'; '.join(remarks.samples(runs))}.", *remarks.notes(runs)):
        say(console, f"\n{note}")
    for doubt in comparison.doubts(arms):
        say(console, f"\n{doubt}")
    for heading, lines in comparison.difference_lines(arms, first_only=True):
        say(console, "\n  ".join([f"\n{heading}", *lines]))
    console.print()
    text = json.dumps(comparison.as_json(arms), indent=2) + "\n"
    record, page = (out / name for name in OUTPUTS)
    write_text(record, text)
    write_report(paths, page, images)
    say(console, f"{record}\n{page}")
    return text
