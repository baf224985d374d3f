"""`regmix train`."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from regmix.cli.common import ModelSource, console_for, evaluation_of, tell
from regmix.cli.console import ConsoleDisplay
from regmix.cli.flags import parse, take
from regmix.config import UNIONS, Experiment, from_json
from regmix.models import Function
from regmix.recipes import recipe
from regmix.runs import CONFIG, Run
from regmix.training.start import resume, run
from regmix.types import Trust, UserError, known


@dataclass(frozen=True)
class TrainFlags:
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    out: Path | None = None
    """The run directory to make; None means runs/RECIPE-METHOD-seedN."""
    trust_code: bool = False
    """With --from RUN: the model's code may run that the run asks for; --model.source names it instead."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class ResumeFlags:
    source: ModelSource = None
    """The module:function that makes the run's model, if it is one of yours. Its code is run."""
    trust_code: bool = False
    """The model's code may run that the run asks for, whatever it is."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


def train(words: list[str]) -> None:
    """Trains a recipe, repeats a run, or continues one."""
    command = shlex.join(["regmix", "train", *words])
    if (path := take(words, "--resume")) is not None:
        flags = parse(ResumeFlags, words, "train --resume RUN", "Continues a run with its own settings.")
        _resume(Path(path), Trust(flags.source, flags.trust_code), flags.json)
        return
    name, chosen = meant(words)
    experiment = chosen.experiment
    out = chosen.out or Path("runs") / f"{name}-{experiment.method.name}-seed{experiment.seed}"
    with ConsoleDisplay(console_for(chosen.json)) as display:
        finished = run(experiment, out, display, command)
    tell(finished, chosen.json, evaluation_of(finished))


def meant(words: list[str]) -> tuple[str, TrainFlags]:
    """The name of the recipe or run that the words of `train` begin with, and the experiment that they mean."""
    source, asked = take(words, "--from"), ""
    kinds = {part: take(words, f"--{part}") for part in UNIONS}
    name = words.pop(0) if words and not words[0].startswith("-") else None
    if source is not None and name is None:
        # Whatever it asks for is read, and not built before the user has allowed it.
        everything, earlier = Trust(everything=True), Run.open(Path(source))
        if earlier.environment().source is not None:
            raise UserError(f"{source} is a model from elsewhere, whose training is not known; start from a recipe")
        base, name = from_json(earlier.config(), f"{source}/{CONFIG}", everything), Path(source).name
        if isinstance(base.model, Function):
            asked = base.model.source
            base = replace(base, model=Function())
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
    flags = parse(TrainFlags, words, f"train {name}", about, TrainFlags(base))
    if source is not None and flags.experiment.model == Function():
        Trust(everything=flags.trust_code).check(asked, Path(source))
        flags = replace(flags, experiment=replace(flags.experiment, model=Function(asked)))
    return name, flags


def _resume(path: Path, trust: Trust, as_json: bool) -> None:
    with ConsoleDisplay(console_for(as_json)) as display:
        finished = resume(path, display, trust)
    tell(finished, as_json, evaluation_of(finished))
