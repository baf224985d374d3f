"""The commands: flags in, one call of the library each, a few lines out."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from regmix.assess import assess
from regmix.attacks import parse_attack
from regmix.console import ConsoleDisplay
from regmix.evaluation import CLEAN
from regmix.experiment import UNIONS, Experiment, from_json, resume, run
from regmix.flags import known, parse, take
from regmix.recipes import RECIPES, recipe
from regmix.reports import write_report
from regmix.runs import CONFIG, Checkpoint, Run
from regmix.threats import parse_eps
from regmix.training import engine
from regmix.types import UserError


@dataclass(frozen=True)
class TrainFlags:
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    out: Path | None = None
    """The run directory to make; None means runs/RECIPE-METHOD-seedN."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class ResumeFlags:
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class EvaluateFlags:
    run: Annotated[Path, tyro.conf.Positional]
    """A run directory."""
    attacks: str = "clean,fgsm,pgd-10,pgd-50"
    """Attacks, separated by commas: clean, fgsm, pgd-N (N steps of a quarter of eps)."""
    eps: str | None = None
    """Radii in pixel units of [0, 1], separated by commas, such as 8/255,16/255; None means the training's eps."""
    examples: int | None = None
    """Use the first so many test images; None means all of them."""
    checkpoint: Literal["best", "last", "averaged", "all"] = "all"
    """Which weights to evaluate."""
    batch_size: int = 250
    """Images per batch."""
    device: engine.Device = "auto"
    """Where to run."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class ReportFlags:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("report.html")
    """The HTML file to write."""


@dataclass(frozen=True)
class RecipesFlags:
    json: bool = False
    """Print the recipes as JSON."""


def recipes(words: Sequence[str]) -> None:
    """Lists the recipes."""
    flags = parse(RecipesFlags, words, "recipes", "Lists the recipes with a line each.")
    lines = {name: (make.__doc__ or "").splitlines()[0] for name, make in RECIPES.items()}
    if flags.json:
        print(json.dumps(lines, indent=2))
        return
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")


def train(words: list[str]) -> None:
    """Trains a recipe, repeats a run, or continues one."""
    if (path := take(words, "--resume")) is not None:
        flags = parse(ResumeFlags, words, "train --resume RUN", "Continues a run with its own settings.")
        _resume(Path(path), flags.json)
        return
    source = take(words, "--from")
    kinds = {part: take(words, f"--{part}") for part in UNIONS}
    name = words.pop(0) if words and not words[0].startswith("-") else None
    if source is not None and name is None:
        base, name = from_json(Run.open(Path(source)).config(), f"{source}/{CONFIG}"), Path(source).name
    elif name is not None and source is None:
        base = recipe(name)
    elif {"-h", "--help"} & set(words):
        base, name = recipe("digits-regmix"), "RECIPE"
    else:
        raise UserError("train needs a recipe (see: regmix recipes), --from RUN, or --resume RUN")
    for part, kind in kinds.items():
        if kind is not None and kind != getattr(base, part).name:
            base = replace(base, **{part: UNIONS[part][known(kind, UNIONS[part], part)]()})
    choices = "\n".join(f"  --{part} {' | '.join(variants)}" for part, variants in UNIONS.items())
    about = (
        "Trains a model into a run directory. Instead of RECIPE, --from RUN takes the settings of a run, and "
        "--resume RUN continues one that was interrupted.\n\n"
        f"A part of another kind is chosen by its name; its own flags can follow:\n{choices}"
    )
    chosen = parse(TrainFlags, words, f"train {name}", about, TrainFlags(base))
    experiment = chosen.experiment
    out = chosen.out or Path("runs") / f"{name}-{experiment.method.name}-seed{experiment.seed}"
    with ConsoleDisplay(Console(stderr=chosen.json)) as display:
        finished = run(experiment, out, display, shlex.join(["regmix", *sys.argv[1:]]))
    _tell(finished, chosen.json, f"regmix evaluate {finished.path}")


def _resume(path: Path, as_json: bool) -> None:
    with ConsoleDisplay(Console(stderr=as_json)) as display:
        finished = resume(path, display)
    _tell(finished, as_json, f"regmix evaluate {finished.path}")


def evaluate(words: Sequence[str]) -> None:
    """Attacks a run's checkpoints on the test split."""
    flags = parse(EvaluateFlags, words, "evaluate", "Attacks a run's checkpoints on the test split, in float32.")
    directory = Run.open(flags.run)
    attacks = [name.strip() for name in flags.attacks.split(",")]
    for name in attacks:
        if name != CLEAN:
            parse_attack(name)
    eps = [parse_eps(text) for text in flags.eps.split(",")] if flags.eps else []
    checkpoints: list[Checkpoint] = [] if flags.checkpoint == "all" else [flags.checkpoint]
    with ConsoleDisplay(Console(stderr=flags.json)) as display:
        assess(directory, attacks, eps, checkpoints, flags.examples, flags.batch_size, flags.device, display)
    _tell(directory, flags.json, f"regmix report {directory.path} -o report.html")


def report(words: Sequence[str]) -> None:
    """Writes the report of one or several runs."""
    flags = parse(ReportFlags, words, "report", "Writes one self-contained HTML page about one or several runs.")
    if not flags.runs:
        raise UserError("report needs at least one run directory")
    write_report(flags.runs, flags.output)
    print(flags.output)


def _tell(directory: Run, as_json: bool, next_command: str) -> None:
    if as_json:
        print(json.dumps({"run": str(directory.path), **directory.result()}, indent=2))
    else:
        print(f"{directory.path}  (next: {next_command})")
