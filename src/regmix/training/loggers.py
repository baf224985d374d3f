"""Sends the rows of metrics.jsonl to programs that show them: TensorBoard, Weights & Biases, MLflow, Trackio, CSV."""

import csv
import hashlib
import io
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regmix.config import Experiment
from regmix.runs import METRICS, Run
from regmix.runs.records import Epoch
from regmix.runtime.files import flat, write_text
from regmix.runtime.imported import optional
from regmix.training.display import Display
from regmix.types import known

PROJECT = "regmix"


class Logger(Display):
    """Receives every epoch of a training. It is opened with the first one, when the run directory exists.

    A logger that fails, for example because its server cannot be reached, is left out from then on; the training goes
    on and metrics.jsonl has everything.
    """

    name: str

    def __init__(self, experiment: Experiment, out: Path) -> None:
        self.experiment, self.out = experiment, out
        self.failure: str | None = None
        self._opened = False

    def epoch(self, row: Epoch) -> None:
        """Sends one row."""
        if self.failure is not None:
            return
        try:
            if not self._opened:
                self.open()
                self._opened = True
            self.send(row.epoch, dict(scalars(row)))
        except Exception as error:  # every library has its own
            self._fail(error)

    def close(self) -> None:
        """Ends the log."""
        if self._opened and self.failure is None:
            try:
                self.end()
            except Exception as error:  # the training is finished, and metrics.jsonl has everything
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = f"--log {self.name} failed and is left out: {' '.join(str(error).split())}"

    def open(self) -> None:
        """Begins the log, or continues that of an interrupted run."""
        return

    @abstractmethod
    def send(self, epoch: int, values: dict[str, float]) -> None:
        """Adds the numbers of an epoch."""

    def end(self) -> None:
        """Writes what is not written yet."""
        return

    @property
    def key(self) -> str:
        """The name of the run in the program, so that a resumed run continues its log, and a new one begins its own."""
        known = Run.open(self.out, writes=False).environment().run_id
        return known or hashlib.sha256(str(self.out.resolve()).encode()).hexdigest()[:16]


class Csv(Logger):
    """metrics.csv in the run directory, a line per epoch."""

    name = "csv"

    def send(self, epoch: int, values: dict[str, float]) -> None:
        """Writes the rows of metrics.jsonl."""
        self.end()

    def end(self) -> None:
        """Writes all rows anew: a run that went back has lost some, and the last ones may have been written late."""
        rows = [{"epoch": row.epoch, **dict(scalars(row))} for row in Run.open(self.out, writes=False).metrics()]
        text = io.StringIO()
        writer = csv.DictWriter(text, [*dict.fromkeys(name for row in rows for name in row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.out / "metrics.csv", text.getvalue())


class TensorBoard(Logger):
    """Event files in the folder tensorboard of the run directory."""

    name = "tensorboard"

    def __init__(self, experiment: Experiment, out: Path) -> None:
        super().__init__(experiment, out)
        _library("tensorboard", "tensorboard")
        self._library: Any = _library("torch.utils.tensorboard", "tensorboard")

    def open(self) -> None:
        """No epoch has been sent yet."""
        self._last = 0
        self._writer: Any = None

    def send(self, epoch: int, values: dict[str, float]) -> None:
        """Adds scalars. TensorBoard shows all files of the folder as one log, without what a later file purges."""
        if self._writer is None or epoch <= self._last:  # the run was resumed, or went back
            self.end()
            self._writer = self._library.SummaryWriter(str(self.out / "tensorboard"), purge_step=epoch)
        self._last = epoch
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


class WandB(Logger):
    """A run of the project regmix, with the settings as its config. WANDB_MODE=offline keeps it here."""

    name = "wandb"

    def __init__(self, experiment: Experiment, out: Path) -> None:
        super().__init__(experiment, out)
        self._library: Any = _library(self.name, self.name)

    def open(self) -> None:
        """Begins or continues a run."""
        self._library.init(
            project=PROJECT, name=self.out.name, id=self.key, dir=str(self.out), config=asdict(self.experiment),
            resume="allow",
        )  # fmt: skip

    def send(self, epoch: int, values: dict[str, float]) -> None:
        """Adds one step."""
        self._library.log(values, step=epoch)

    def end(self) -> None:
        """Waits until everything is written."""
        self._library.finish()


class Trackio(WandB):
    """A run of the project regmix."""

    name = "trackio"

    def open(self) -> None:
        """Begins or continues a run."""
        name = f"{self.out.name}-{self.key}"
        self._library.init(project=PROJECT, name=name, config=asdict(self.experiment), resume="allow")


class MLflow(Logger):
    """A run of the experiment regmix, where MLFLOW_TRACKING_URI says."""

    name = "mlflow"
    TAG = "regmix.run"

    def __init__(self, experiment: Experiment, out: Path) -> None:
        super().__init__(experiment, out)
        self._library: Any = _library("mlflow", "mlflow-skinny")

    def open(self) -> None:
        """Begins or continues a run."""
        client = self._client = self._library.MlflowClient()
        found = client.get_experiment_by_name(PROJECT)
        place = found.experiment_id if found is not None else client.create_experiment(PROJECT)
        before = client.search_runs([place], f"tags.`{self.TAG}` = '{self.key}'", max_results=1)
        run = before[0] if before else client.create_run(place, run_name=self.out.name, tags={self.TAG: self.key})
        self._run = run.info.run_id
        if not before:
            for name, value in flat(asdict(self.experiment)).items():
                client.log_param(self._run, name, value)

    def send(self, epoch: int, values: dict[str, float]) -> None:
        """Adds metrics."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def end(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._run)


LOGGERS: dict[str, Callable[[Experiment, Path], Logger]] = {
    logger.name: logger for logger in (Csv, TensorBoard, WandB, MLflow, Trackio)
}


class Several(Display):
    """Passes every event on to a display and to some loggers, whose failures the display tells."""

    def __init__(self, display: Display, loggers: Sequence[Logger]) -> None:
        self._display, self._loggers = display, loggers
        # Most events are for the display alone.
        self.start, self.batch, self.alarm = display.start, display.batch, display.alarm  # type: ignore[method-assign]
        self.warn, self.note = display.warn, display.note  # type: ignore[method-assign]

    def epoch(self, row: Epoch) -> None:
        """An epoch is done."""
        self._display.epoch(row)
        self._of_all(lambda logger: logger.epoch(row))

    def close(self) -> None:
        """The training has ended."""
        self._of_all(Logger.close)

    def _of_all(self, ask: Callable[[Logger], None]) -> None:
        for logger in self._loggers:
            before = logger.failure
            ask(logger)
            if logger.failure not in (None, before):
                self._display.warn(str(logger.failure))


def make_loggers(names: Sequence[str], experiment: Experiment, out: Path) -> list[Logger]:
    """The loggers of these names for a run directory. Raises UserError for an unknown one, or a missing library."""
    return [LOGGERS[known(name, LOGGERS, "logger")](experiment, out) for name in dict.fromkeys(names)]


def _library(module: str, package: str) -> Any:
    return optional(module, f"--log needs {package}, without which {METRICS} has all numbers", package)


def scalars(row: Epoch) -> Iterator[tuple[str, float]]:
    """The numbers of a row by name, such as terms/classify and validation/pgd."""
    for name in ("loss", "lr", "train_robust", "images_per_second", "seconds"):
        if (value := getattr(row, name)) is not None:
            yield name, value
    for group in ("terms", "stats", "validation"):
        for name, value in (getattr(row, group) or {}).items():
            yield f"{group}/{name}", value
