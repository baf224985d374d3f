"""Trainings of many runs, each in a process of its own, several at a time, resumed where they were interrupted."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

from rich.console import Console

from regmix.config import Experiment, from_json, to_json
from regmix.data import DataConfig, fingerprint, held_out_folder, load_training
from regmix.reports.words import duration
from regmix.runs import CONFIG, Run
from regmix.runs.alike import image_changes
from regmix.runs.records import Data, validated
from regmix.runtime.files import flat
from regmix.runtime.signals import ending, handled, survive_hangup
from regmix.types import Interrupted, Trust, UserError

_running: set[subprocess.Popen[bytes]] = set()
"""The training processes that are running, in any thread."""


Watch = Callable[[int, float], bool]
"""(epoch, accuracy on the validation images) -> whether the training should end there. It is the accuracy by which the
method chooses its best weights: under PGD-10, for standard training without an attack."""
ROOT = "data.root"
PRECISION = "precision"
POLL = 0.5
"""Seconds between two looks at the epochs of a training that is watched."""

GRACE = 3.0
"""Seconds after Ctrl-C in which the trainings should have received it, too."""


class TrainingError(UserError):
    """A training ended with an error that its settings or images caused; its output has the line that says why."""


@contextmanager
def reaching_trainings() -> Iterator[None]:
    """Inside the block, forwards signals to the running trainings, which save their state, and then ends.

    A terminal sends Ctrl-C to the trainings itself, and a second one would end them at once. SIGHUP, which a training
    that is about to end ignores, reaches those that did not receive it, because only this process was interrupted.
    """

    def forward(number: int, frame: FrameType | None) -> None:
        survive_hangup(number)
        _send(number)
        raise Interrupted(number)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if hasattr(signal, "SIGHUP"):
            later = threading.Timer(GRACE, _send, (signal.SIGHUP,))
            later.daemon = True
            later.start()
        raise KeyboardInterrupt

    with handled(forward, *ending()), handled(interrupt, signal.SIGINT):
        yield


def _send(number: int) -> None:
    for training in [*_running]:
        training.send_signal(number)


@cache
def _images(data: DataConfig, train_examples: int | None, validation: int | None, split_seed: int) -> Data:
    train_set, validation_set = load_training(data, train_examples, validation, split_seed)
    validation_set = validation_set.resident()
    return Data(fingerprint(train_set), fingerprint(validation_set), held_out=held_out_folder(validation_set))


@dataclass(frozen=True)
class Planned:
    """A run of a comparison: its directory, the arguments of `regmix train` that make it, and its experiment."""

    path: Path
    words: list[str]
    experiment: Experiment

    @property
    def is_finished(self) -> bool:
        """Whether its training is complete."""
        return self.path.exists() and Run.open(self.path).result().is_complete

    def check(self) -> None:
        """Raises UserError if the directory holds a run with other settings, or of other images.

        Where its images lie is no setting, if its training is complete: only their content counts. Of the precision
        counts what the run was trained in: auto agrees with all, as long as the seeds do (see `told_apart`).
        """
        if not self.path.exists():
            return
        run, everything = Run.open(self.path), Trust(everything=True)  # only read, not built
        present = flat(json.loads(to_json(from_json(run.config(), self.path / CONFIG, everything))))
        wanted = flat(json.loads(to_json(self.experiment)))
        if wanted[PRECISION] in ("auto", trained := run.environment().precision) and trained is not None:
            present[PRECISION] = wanted[PRECISION]
        other = [name for name in sorted(present.keys() | wanted.keys()) if present.get(name) != wanted.get(name)]
        if run.result().is_complete and (data := run.data()) is not None and other in ([], [ROOT]):
            try:
                changed = self._other_images(data)
            except UserError:
                if other:
                    raise
                changed = ""  # without images nothing else will be trained on others
            if not changed:
                return
            raise UserError(f"{self.path} was trained on other images: {changed}; give another --out")
        for name in other:
            raise UserError(
                f"{self.path} was trained with {name} = {present.get(name)}, not {wanted.get(name)}; "
                "give another --out, or the settings of that run"
            )

    def _other_images(self, known: Data) -> str:
        """How the images that the experiment names now differ from those of the run; empty if they do not."""
        drawn = self.experiment
        return image_changes(known, _images(drawn.data, drawn.train_examples, drawn.validation, drawn.split_seed))

    def train(
        self, *, quiet: bool, log: Path | None = None, threads: int | None = None, watch: Watch | None = None
    ) -> bool:
        """Trains the run, or resumes it, in a separate process, so that its peak memory is measured alone.

        Args:
            quiet: send the output of the training to standard error.
            log: a file for all output of the training instead.
            threads: how many threads the training may use; None leaves that to torch.
            watch: is given every validated epoch and its accuracy; where it returns True during the training, the
                training ends.

        Returns: whether the training is complete.

        Raises:
            TrainingError: the training ended with an error of its own; its output says why.
            UserError: it was ended otherwise, such as for lack of memory.
        """
        if self.is_finished:
            self._show(watch, 0)
            return True
        if self.path.exists():
            # `check` has compared the experiment with the directory's.
            words = ["--resume", str(self.path), *self.experiment.code_flags]
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
                stopped = watch is not None and self._stopped(training, watch)
                code = training.wait()
            except KeyboardInterrupt:
                # Give the training time to save its state.
                training.wait()
                raise
            finally:
                _running.discard(training)
        if stopped and code in (0, 143):
            return False
        if code in (129, 130, 143):
            raise Interrupted(code - 128)
        if code:
            kind = TrainingError if code == 2 else UserError
            raise kind(f"{self.path}: the training ended with exit code {code}; see {log or 'the line above'}")
        return True

    def _stopped(self, training: subprocess.Popen[bytes], watch: Watch) -> bool:
        """Shows every validated epoch to `watch` until the training ends; whether it was stopped before."""
        seen, runs = 0, True
        while runs:
            time.sleep(POLL)
            runs = training.poll() is None  # before the look, which then sees the last epochs too
            seen, stop = self._show(watch, seen)
            if stop and runs:
                training.terminate()
                return True
        return False

    def _show(self, watch: Watch | None, seen: int) -> tuple[int, bool]:
        """Shows the epochs after `seen` to `watch`; returns the last one, and whether `watch` asked for the end."""
        if watch is None or not (self.path / CONFIG).is_file():
            return seen, False
        rows = Run.open(self.path, writes=False).metrics()
        for epoch, accuracy in validated(rows, self.experiment.method.chosen_by):
            if epoch > seen:
                seen = epoch
                if watch(epoch, accuracy):
                    return seen, True
        return seen, False


def threads_of_each(workers: int) -> int | None:
    """How many threads each of several trainings at the same time may use; None, which leaves it to torch, for one."""
    return max(1, (os.cpu_count() or 1) // workers) if workers > 1 else None


def train_all(runs: Sequence[Planned], workers: int, console: Console) -> dict[Path, TrainingError]:
    """Trains runs, `workers` at a time, the cores divided among them; the output of each is in a log beside its run.

    Returns: the trainings that failed. The others are trained nevertheless.

    Raises:
        UserError: a training ended otherwise than with an error of its own, such as for lack of memory; those that had
            not begun are not begun.
    """
    threads = threads_of_each(workers)
    began, done = time.monotonic(), 0
    failed: dict[Path, TrainingError] = {}

    def train(run: Planned) -> None:
        nonlocal done
        run.path.parent.mkdir(parents=True, exist_ok=True)
        log, what = run.path.with_name(f"{run.path.name}.log"), f"trained {run.path.name}"
        try:
            run.train(quiet=True, log=log, threads=threads)
        except TrainingError as error:
            failed[run.path], what = error, str(error)
        done += 1
        rest = (time.monotonic() - began) / done * (len(runs) - done)
        say(console, f"{what} ({done} of {len(runs)}, about {duration(rest)} left)")

    with ThreadPoolExecutor(workers) as pool:
        try:
            for ended in as_completed([pool.submit(train, run) for run in runs]):
                ended.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
