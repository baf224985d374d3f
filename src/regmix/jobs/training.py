"""Trains a recipe or an experiment into a run directory, or continues a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regmix.arguments import checked
from regmix.config import Experiment, from_json
from regmix.jobs.console import ProgressTo, shown
from regmix.jobs.settings import with_changes
from regmix.recipes import recipe
from regmix.runs import CONFIG, Run
from regmix.runtime import processes
from regmix.shorthand import names_in
from regmix.training import start
from regmix.training.display import Display
from regmix.training.loggers import Several, make_loggers
from regmix.types import Trust, UserError


@checked
def train(
    experiment: str | Experiment | Run, out: str | Path | None = None, *, log: str | Sequence[str] = (),
    progress: ProgressTo = True, trust_code: bool = False, command: str = "", **changes: Any,
) -> Run:  # fmt: skip
    """Trains a model into a new run directory, as `regmix train` does, and returns the run.

    Ctrl-C, or the stop button of a notebook, saves the training in the middle of an epoch, and `resume` continues it; a
    second one ends the process at once.

    Args:
        experiment: the name of a recipe, an Experiment, or a run whose settings are used again.
        out: the directory to make; None: runs/NAME-METHOD-seedN, where NAME is that of the recipe, the run or the data.
        log: csv, tensorboard, wandb, mlflow, trackio: names, or one text with commas between them.
        progress: True: lines on standard output, and a bar on a terminal; False: nothing; or a Console of rich.
        trust_code: allows to run the code that a run names as its model or data.
        command: what environment.json records as the command; empty: this call.
        changes: settings to change, such as epochs=10, method="trades" or threat={"eps": 0.1}; see `with_changes`.

    Raises:
        UserError: the user has to change something; where possible it is raised before the directory is made.
    """
    name, base = _base(experiment, Trust(everything=trust_code))
    chosen = with_changes(base, changes)
    folder = Path(out) if out is not None else default_folder(name, chosen)
    if not command:
        given = [repr(experiment if isinstance(experiment, str) else name), f"out={str(folder)!r}"]
        command = f"regmix.train({', '.join([*given, *(f'{key}={value!r}' for key, value in changes.items())])})"
    with _training(progress, log, chosen, folder) as display:
        return start.run(chosen, folder, display, command)


@checked
def resume(
    run: str | Path | Run, epochs: int | None = None, *, log: str | Sequence[str] = (), progress: ProgressTo = True,
    data: str | Path | None = None, source: str | None = None, data_source: str | None = None, trust_code: bool = False,
) -> Run:  # fmt: skip
    """Continues an interrupted run from its last saved state; it ends as it would have ended without the interruption.

    Args:
        epochs: lengthens a finished run to so many epochs.
        log: as for `train`.
        progress: as for `train`.
        data: the folder of the images, if they were moved since the run began.
        source: the module:function of the run's model, if it is a function of yours. Its code is run.
        data_source: the module:function of the run's data, if they are yours. Its code is run.
        trust_code: allows to run whatever code the run asks for.

    Raises:
        UserError: the user has to change something, for example allow the code of a model.
    """
    path = path_of(run)
    experiment = from_json(Run.open(path).config(), path / CONFIG, Trust(everything=True))  # only read, not built
    with _training(progress, log, experiment, path) as display:
        return start.resume(path, display, Trust(source, trust_code, data_source), epochs, data)


def path_of(run: str | Path | Run) -> Path:
    """The folder of a run."""
    return run.path if isinstance(run, Run) else Path(run)


def default_folder(name: str, experiment: Experiment) -> Path:
    """Where a training goes for which the user names no directory."""
    return Path("runs") / f"{name}-{experiment.method.name}-seed{experiment.seed}"


def settings_of(run: Run, trust: Trust) -> Experiment:
    """The experiment of a run, to be trained anew. The code of its model is not imported.

    Raises:
        UserError: a model from elsewhere, or code that is not allowed to run.
    """
    if run.environment().source is not None:
        raise UserError(
            f"{run.path} holds a model from elsewhere, whose training settings are unknown; start from a recipe"
        )
    return from_json(run.config(), f"{run.path}/{CONFIG}", trust)


def _base(experiment: str | Experiment | Run, trust: Trust) -> tuple[str, Experiment]:
    """The settings to begin with, and a name for them."""
    if isinstance(experiment, str):
        return experiment, recipe(experiment)
    if isinstance(experiment, Run):
        return experiment.path.name, settings_of(experiment, trust)
    return experiment.data.name, experiment


@contextmanager
def _training(progress: ProgressTo, log: str | Sequence[str], experiment: Experiment, out: Path) -> Iterator[Display]:
    """The display of a training: the console and the loggers, which are rank 0's alone."""
    names = [name for name in names_in(log) if name] if isinstance(log, str) else log
    loggers = make_loggers(names if processes.started()[0] == 0 else [], experiment, out)
    with shown(progress) as display:
        several = Several(display, loggers)
        try:
            yield several
        finally:
            several.close()
