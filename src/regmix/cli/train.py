"""`regmix train`."""

import shlex
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from regmix import jobs
from regmix.cli import help_pages
from regmix.cli.common import DataSource, ModelSource, console_for, evaluate_command, print_result
from regmix.cli.describe import settings_of as described
from regmix.cli.flags import parse
from regmix.cli.help_pages import HELP
from regmix.cli.mistyped import check
from regmix.cli.table import take, take_kinds, training_flags
from regmix.config import UNIONS, Experiment
from regmix.data import DataFunction
from regmix.jobs.training import default_folder, settings_of
from regmix.models import Function
from regmix.recipes import recipe
from regmix.runs import Run
from regmix.types import Trust


@dataclass(frozen=True)
class TrainFlags:
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    out: Path | None = None
    """The run directory to create. None: runs/RECIPE-METHOD-seedN."""
    log: str = ""
    """Also write the metrics of every epoch to these programs, separated by commas: csv, tensorboard, wandb, mlflow,
    trackio."""
    trust_code: bool = False
    """With --from RUN: allow the import of the code that the run names as its model. To allow one function only, name
    it with --model.source."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


@dataclass(frozen=True)
class ResumeFlags:
    epochs: int | None = None
    """Lengthen a finished run to this many epochs. From there on, the learning rate and the ramp are those of a
    training of that length."""
    log: str = ""
    """Also write the metrics of every epoch to these programs, separated by commas: csv, tensorboard, wandb, mlflow,
    trackio. The log of an interrupted run is continued."""
    source: ModelSource = None
    """The module:function that returns the run's model, if the model is a function of yours. Its code is run. None: no
    code of yours."""
    data_source: DataSource = None
    """The module:function that returns the run's images, if they come from a function of yours. Its code is run. None:
    no code of yours."""
    root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    """The folder of the run's images, if they were moved. None: the folder that the run names."""
    trust_code: bool = False
    """Allow the import of any code that the run names as its model or data."""
    json: bool = False
    """Print the result as JSON on standard output, and progress on standard error."""


def train(words: list[str]) -> None:
    """Trains a recipe, trains anew with the settings of a run, or continues a run."""
    command = shlex.join(["regmix", "train", *words])
    if (path := take(words, "--resume")) is not None:
        flags = parse(ResumeFlags, words, "train --resume RUN")
        finished = jobs.resume(
            path, flags.epochs, log=flags.log, progress=console_for(flags.json), data=flags.root,
            source=flags.source, data_source=flags.data_source, trust_code=flags.trust_code,
        )  # fmt: skip
        print_result(finished, flags.json, evaluate_command(finished, flags.root))
        return
    if help_words := {*HELP} & {*words}:  # with --from RUN; all other help is printed without the library
        print(_help(words, everything="--help-all" in help_words))
        return
    name, chosen = parse_training(words)
    experiment = chosen.experiment
    out = chosen.out or default_folder(name, experiment)
    finished = jobs.train(experiment, out, log=chosen.log, progress=console_for(chosen.json), command=command)
    print_result(finished, chosen.json, evaluate_command(finished))


def parse_training(words: list[str]) -> tuple[str, TrainFlags]:
    """The flags of `regmix train`, and the name of the recipe or run that its words begin with."""
    source, kinds = take(words, "--from"), take_kinds(words, UNIONS)
    requested: dict[str, str] = {}  # code that the user must allow on this command line
    if source is not None:
        base, name = _settings_of(source), Path(source).name
        if isinstance(base.model, Function):
            requested["model"] = base.model.source
            base = replace(base, model=Function())
        if isinstance(base.data, DataFunction):
            requested["data"] = base.data.source
            base = replace(base, data=DataFunction())
    else:
        name = words.pop(0)
        base = recipe(name)
    base = with_kinds(base, kinds)
    check(words, training_flags({part: getattr(base, part).name for part in UNIONS}), "train")
    flags = parse(TrainFlags, words, "train", TrainFlags(base))
    trust, experiment = Trust(everything=flags.trust_code), flags.experiment
    if "model" in requested and experiment.model == Function():
        trust.check(requested["model"], Path(str(source)))
        experiment = replace(experiment, model=Function(requested["model"]))
    if "data" in requested and experiment.data == DataFunction():
        trust.check(requested["data"], Path(str(source)), "data")
        experiment = replace(experiment, data=DataFunction(source=requested["data"]))
    return name, replace(flags, experiment=experiment)


def with_kinds(experiment: Experiment, kinds: dict[str, str]) -> Experiment:
    """The experiment with other kinds of some parts, such as another method, at their own defaults.

    Whether the parts fit together is not checked: flags that are parsed later may still change them, and then it is.
    """
    changed = copy(experiment)
    for part, kind in kinds.items():
        if kind != getattr(experiment, part).name:
            object.__setattr__(changed, part, UNIONS[part][kind]())
    return changed


def _settings_of(path: str) -> Experiment:
    """The experiment of a run. The code of its model is not imported."""
    return settings_of(Run.open(Path(path)), Trust(everything=True))


def _help(words: list[str], *, everything: bool) -> str:
    """The help of `regmix train --from RUN`, with the settings of the run as defaults."""
    source = take(words, "--from")
    assert source is not None
    earlier = described(_settings_of(source))
    page = help_pages.train(f"--from {source}", earlier, earlier.kinds | take_kinds(words, UNIONS))
    return page.text(everything=everything)
