"""The pieces of `regmix compare`: what a method's text means, which work is left, and the result in all its forms."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from regmix.config import UNIONS, Experiment, from_json, to_json
from regmix.models import Function
from regmix.reports import comparison, page, write_report
from regmix.reports.load import aligned, load
from regmix.runs import CONFIG, Run
from regmix.runtime.files import write_atomically
from regmix.runtime.signals import ending, handled, survive_hangup
from regmix.types import Interrupted, Trust, UserError, known

_running: set[subprocess.Popen[bytes]] = set()
"""The trainings that run, in whichever thread."""


def reaching_trainings() -> AbstractContextManager[None]:
    """Inside, SIGTERM and SIGHUP go to the trainings that run, which save what they have, before it ends the work."""

    def forward(number: int, frame: FrameType | None) -> None:
        survive_hangup(number)
        for training in [*_running]:
            training.send_signal(number)
        raise Interrupted(number)

    return handled(forward, *ending())


def method_words(text: str) -> list[str]:
    """The flags of `regmix train` that a text such as pgd_at:steps=2:start=corner means.

    What is no field of the method is a flag of the experiment: fgsm_pgk:averaging=gated_ema.
    """
    name, *settings = text.strip().split(":")
    fields = UNIONS["method"][known(name, UNIONS["method"], "method")].__dataclass_fields__
    found = ["--method", name]
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals and value):
            raise UserError(f"--methods {text.strip()}: {setting!r} is no setting; write {name}:FIELD=VALUE")
        flag = "--method." + key if key.split(".")[0].replace("-", "_") in fields else "--" + key
        found += [flag.replace("_", "-"), value]
    return found


@dataclass(frozen=True)
class Planned:
    """A run of a comparison: where it lies, the words of `regmix train` that make it, and what these mean."""

    path: Path
    words: list[str]
    experiment: Experiment

    def check(self) -> None:
        """Raises UserError if there is another experiment in its place."""
        if not self.path.exists():
            return
        everything = Trust(everything=True)  # only read, not built
        there = _flat(json.loads(to_json(from_json(Run.open(self.path).config(), self.path / CONFIG, everything))))
        wanted = _flat(json.loads(to_json(self.experiment)))
        for name in sorted(there.keys() | wanted.keys()):
            if there.get(name) != wanted.get(name):
                raise UserError(
                    f"{self.path} was trained with {name} = {there.get(name)}, not {wanted.get(name)}; "
                    "give another --out, or the settings that it was trained with"
                )

    def train(self, *, quiet: bool, log: Path | None = None, threads: int | None = None) -> None:
        """Trains the run, or what is left of it, in a process of its own, so that its peak memory is its own.

        Args:
            quiet: what it says goes to standard error; with a `log` it goes there.
            threads: as many as it may use; None leaves that to torch.

        Raises:
            UserError: the training failed; it has said why.
        """
        if self.path.exists():
            if Run.open(self.path).result().status in ("finished", "stopped"):
                return
            words = ["--resume", str(self.path)]
            if isinstance(self.experiment.model, Function):  # `check` has found the same one there
                words += ["--model.source", self.experiment.model.source]
        else:
            words = [*self.words, "--out", str(self.path)]
        environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads is not None else {})
        with (
            log.open("a") if log is not None else nullcontext(sys.stderr if quiet else None) as said,
            subprocess.Popen(
                [sys.executable, "-P", "-m", "regmix", "train", *words], env=environment, stdout=said,
                stderr=said if log is not None else None,
            ) as training,
        ):  # fmt: skip
            _running.add(training)
            try:
                code = training.wait()
            except KeyboardInterrupt:
                # It has reached the training, too, which is given the time to save what it has.
                training.wait()
                raise
            finally:
                _running.discard(training)
        if code in (129, 130, 143):
            raise Interrupted(code - 128)
        if code:
            raise UserError(f"{self.path}: the training ended with exit code {code}; see {log or 'the line above'}")


MEASURE = ("threat", "data", "validation", "split_seed", "validate_every", "best_of", "precision")
"""Fields of an Experiment by which the PGD accuracy on the validation images is another number for the same weights:
another attack, other images, or another precision; or by which the best of more weights is taken, which is never lower.
train_examples is none of them: the validation images do not depend on it."""


def check_ranking(experiments: Sequence[Experiment]) -> None:
    """Raises UserError if experiments cannot be ranked by validation, because they differ in how it is measured."""
    if name := _differing(experiments, MEASURE):
        raise UserError(
            f"--space: {name} changes how the points are measured (best PGD-10 accuracy on the validation images), so "
            f"that a ranking would mean nothing; give one --{name.replace('_', '-')} for all"
        )


def check_comparison(experiments: Sequence[Experiment], eps: Sequence[float]) -> None:
    """Raises UserError if the evaluations of these runs would not be of the same images, or not of the same threat.

    eps: the radii of the evaluation; empty means each training's own.
    """
    if name := _differing(experiments, ("data",)):
        raise UserError(f"--methods: {name} may change the test images; give one --{name} for all methods")
    if name := _differing(experiments, ("threat",)):
        if len({type(one.threat) for one in experiments}) > 1:
            raise UserError("--methods: each method would be attacked under its own norm; give one --threat for all")
        if not eps:
            raise UserError(
                f"--methods: {name} differs, and each method would be attacked at its own; "
                "say with --eps at which radii all are evaluated, such as --eps 8/255"
            )


def _differing(experiments: Sequence[Experiment], fields: Sequence[str]) -> str | None:
    """The first setting in these fields that is not the same for all experiments, by its name in config.json."""
    settings = [_flat(json.loads(to_json(one))) for one in experiments]
    names = dict.fromkeys(name for one in settings for name in one if name.split(".")[0] in fields)
    different = (name for name in names if any(one.get(name) != settings[0].get(name) for one in settings))
    return next((name.removesuffix(".name") for name in different), None)


def write_comparison(paths: Sequence[Path], out: Path, console: Console) -> str:
    """Prints the table and the paired differences, and writes comparison.json and report.html into a folder.

    Returns the content of comparison.json.
    """
    arms = comparison.arms(aligned([load(path) for path in paths]))
    header, *rows = comparison.table(arms)
    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    runs = [run for arm in arms for run in arm.runs]
    for note in (f"Of {'; '.join(page.samples(runs))}.", *page.notes(runs)):
        console.print(f"\n{note}", highlight=False, markup=False, soft_wrap=True)
    for doubt in comparison.doubts(arms):
        console.print(f"\n{doubt}", highlight=False, markup=False, soft_wrap=True)
    for heading, lines in comparison.difference_lines(arms, first_only=True):
        console.print(f"\n{heading}", *lines, sep="\n  ", highlight=False, markup=False, soft_wrap=True)
    console.print()
    text = json.dumps(comparison.as_json(arms), indent=2) + "\n"
    write_atomically(out / "comparison.json", lambda file: file.write(text.encode()))
    write_report(paths, out / "report.html")
    console.print(f"{out / 'comparison.json'}\n{out / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    return text


def _flat(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
