"""Who decides which point is tried next, and where: a pool of this process, Optuna, or Ray Tune.

All call the same function, point -> validation accuracy, which may be called again for a point that was interrupted.
"""

import errno
import hashlib
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regmix.runtime.imported import optional
from regmix.studies.sweep.space import Axis, Point, grid
from regmix.studies.trainings import Watch
from regmix.types import UserError

Engine = Literal["local", "optuna", "ray"]
Train = Callable[[Point, Watch | None], float | None]
"""Trains a point and returns its accuracy on the validation images; None if its watch ended it."""

SWEEP = '"regmix[sweep]"'
DATABASE = "study.sqlite"
HEARTBEAT = 15
"""Seconds between a trial's heartbeats. After twice as long without one, another worker repeats the trial."""


@dataclass(frozen=True)
class Budget:
    """How much an engine may train."""

    workers: int
    """Trainings at a time; they share the cores."""
    trials: int
    """Points to try if the space has a range."""
    seeds: int = 1
    """Trainings of every point."""
    prune: bool = False
    """End the trainings that do worse than the median of the others at the same epoch (optuna)."""


def search_name(axes: Sequence[Axis], budget: Budget) -> str:
    """A name of its own for every space and number of seeds: another search in the same folder begins anew.

    The runs of its points are found in the folder and not trained again.
    """
    return f"sweep-{hashlib.sha256(repr((tuple(axes), budget.seeds)).encode()).hexdigest()[:8]}"


def local(axes: Sequence[Axis], train: Train, budget: Budget, folder: Path) -> None:
    """Trains all points of the grid, some at a time."""
    with ThreadPoolExecutor(budget.workers) as pool:
        for _ in pool.map(lambda point: train(point, None), grid(axes)):
            pass


def optuna(axes: Sequence[Axis], train: Train, budget: Budget, folder: Path) -> None:
    """Lets Optuna's TPE sampler choose the points, until the study has enough completed or pruned trials.

    Every trial reports its validation accuracies by epoch, those of its first seed. With `prune`, Optuna's MedianPruner
    ends trials, once five are complete.

    The study is a SQLite file in the folder; several commands may work on it at once. A trial whose worker has died is
    repeated.
    """
    library: Any = optional("optuna", "--engine optuna needs optuna", SWEEP)
    library.logging.set_verbosity(library.logging.ERROR)  # the search itself says what failed
    done = (library.trial.TrialState.COMPLETE, library.trial.TrialState.PRUNED)

    def objective(trial: Any) -> float:
        def watch(epoch: int, accuracy: float) -> bool:
            trial.report(accuracy, epoch)
            return budget.prune and bool(trial.should_prune())

        point = {}
        for axis in axes:
            if axis.is_range and axis.whole:
                drawn = trial.suggest_int(axis.flag, int(axis.low), int(axis.high), log=axis.log)
                point[axis.flag] = str(drawn)
            elif axis.is_range:
                point[axis.flag] = axis.text(trial.suggest_float(axis.flag, axis.low, axis.high, log=axis.log))
            else:
                point[axis.flag] = trial.suggest_categorical(axis.flag, axis.values)
        value = train(point, watch)
        if value is None:
            raise library.TrialPruned
        return value

    with _faults_of_the_database(folder / DATABASE):
        study = _study(library, folder / DATABASE, search_name(axes, budget))
        if (left := budget.trials - len(study.get_trials(states=done))) > 0:
            # Other commands may work on the study too, so stop by the number of trials in the study.
            enough = library.study.MaxTrialsCallback(budget.trials, states=done)
            study.optimize(objective, n_trials=left, n_jobs=budget.workers, callbacks=[enough], catch=(UserError,))


def _study(library: Any, path: Path, name: str) -> Any:
    with warnings.catch_warnings():
        # Optuna has called heartbeats and the constant liar experimental for years.
        warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
        storage = library.storages.RDBStorage(
            f"sqlite:///{path}",
            engine_kwargs={"connect_args": {"timeout": 60}},
            heartbeat_interval=HEARTBEAT,
            heartbeat_stale_trial_callback=library.storages.RetryHeartbeatStaleTrialCallback(),
        )
        sampler = library.samplers.TPESampler(constant_liar=True)
    return library.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True, sampler=sampler
    )


@contextmanager
def _faults_of_the_database(path: Path) -> Iterator[None]:
    """Turns SQLite's errors, such as a full disk, into one OSError, also where the heartbeats' thread meets them."""
    before = threading.excepthook

    def hook(fault: threading.ExceptHookArgs) -> None:
        if _cause(fault.exc_value) is None:
            before(fault)

    threading.excepthook = hook
    try:
        yield
    except Exception as error:
        if (cause := _cause(error)) is None:
            raise
        raise OSError(errno.EIO, str(cause), str(path)) from None
    finally:
        threading.excepthook = before


def _cause(error: BaseException | None) -> sqlite3.Error | None:
    """The error of SQLite that an error comes from, if any."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error


def ray(axes: Sequence[Axis], train: Train, budget: Budget, folder: Path) -> None:
    """Lets Ray Tune train the grid, or random points if there is a range, on the machines of its cluster.

    All machines must have access to the folder, and to the working folder if paths are relative to it.
    """
    tune: Any = optional("ray.tune", "--engine ray needs ray", SWEEP)
    here = Path.cwd()

    def trainable(settings: Point) -> None:
        if here.is_dir():  # Ray starts every trial in another folder, where relative paths would be wrong
            os.chdir(here)
        tune.report({"validation": train(settings, None)})

    ranges = any(axis.is_range for axis in axes)
    space = {axis.flag: _ray_axis(tune, axis, ranges) for axis in axes}
    storage = folder.absolute() / "ray" / search_name(axes, budget)
    if tune.Tuner.can_restore(storage):
        tuner = tune.Tuner.restore(str(storage), trainable, resume_unfinished=True, restart_errored=True)
    else:
        tuner = tune.Tuner(
            trainable, param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=budget.trials if ranges else 1, max_concurrent_trials=budget.workers
            ),
            run_config=tune.RunConfig(storage_path=str(storage.parent), name=storage.name, verbose=0),
        )  # fmt: skip
    tuner.fit()


def _ray_axis(tune: Any, axis: Axis, ranges: bool) -> Any:
    if not axis.is_range:
        return tune.choice(list(axis.values)) if ranges else tune.grid_search(list(axis.values))
    if axis.whole:
        whole = (tune.lograndint if axis.log else tune.randint)(int(axis.low), int(axis.high) + 1)
        return tune.sample_from(lambda _: str(whole.sample()))
    number = (tune.loguniform if axis.log else tune.uniform)(axis.low, axis.high)
    return tune.sample_from(lambda _: axis.text(number.sample()))


ENGINES: dict[Engine, Callable[[Sequence[Axis], Train, Budget, Path], None]] = {
    "local": local,
    "optuna": optuna,
    "ray": ray,
}
