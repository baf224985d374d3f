"""What a person sees while training and evaluation run: a progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


class ConsoleDisplay(AbstractContextManager["ConsoleDisplay"]):
    """Follows a training or an evaluation; on a terminal the lines scroll above the bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("starting", total=None, rate="")
        self._began, self._seen = time.perf_counter(), 0

    def __enter__(self) -> "ConsoleDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, description: str, total: int, done: int = 0) -> None:
        """The work is known: `total` examples, `done` of which an interrupted run has already seen."""
        self._began = time.perf_counter()
        self._progress.update(self._task, description=description, total=total, completed=done)

    def batch(self, examples: int) -> None:
        """Another batch is done."""
        if self._live:
            self._seen += examples
            rate = self._seen / (time.perf_counter() - self._began)
            self._progress.update(self._task, advance=examples, rate=f"{rate:.0f} images/s")

    def stage(self, description: str, left: int) -> None:
        """Another attack begins; `left` is the work that is left, its own included, in the unit of `work`."""
        done = self._progress.tasks[self._task].completed
        self._progress.update(self._task, description=description, total=done + left)

    def work(self, amount: int) -> None:
        """A part of an evaluation is done."""
        self._progress.update(self._task, advance=amount)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done; `row` is its line of metrics.jsonl."""
        terms = "  ".join(f"{name} {value:.4f}" for name, value in row["terms"].items())
        self._progress.update(
            self._task,
            description=f"epoch {min(row['epoch'] + 1, row['epochs'])}/{row['epochs']}, loss {row['loss']:.3f}",
        )
        weights = "".join(
            f"  {name.removesuffix('_weight')} x{value:g}/example"
            for name, value in row["stats"].items()
            if name.endswith("_weight") and row["epoch"] == 1
        )
        validation = row["validation"] or {}
        accuracies = "".join(
            f"  val {name} {f'{value:.2f}' if name == 'alignment' else _percent(value)}"
            for name, value in validation.items()
        )
        waited = f" (waited {_percent(row['waited'])} for data)" if row["waited"] > 0.03 else ""
        left = row["seconds"] / row["epoch"] * (row["epochs"] - row["epoch"])
        self._print(
            f"epoch {row['epoch']:>3}/{row['epochs']}  loss {row['loss']:.4f}  {terms}{weights}{accuracies}"
            f"  {row['images_per_second']:.0f} images/s{waited}  {left:.0f} s left"
        )

    def alarm(self, text: str) -> None:
        """The guard has something to say."""
        self._print(f"ALARM {text}")

    def warn(self, text: str) -> None:
        """Something was wrong and has been got over."""
        self._print(f"WARNING {text}")

    def note(self, text: str) -> None:
        """Something to know about what is evaluated."""
        self._print(text)

    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float) -> None:
        """One attack on one checkpoint is done."""
        self._print(f"{checkpoint:<9} {name:<18} {_percent(accuracy):>6}  [{_percent(low)}, {_percent(high)}]")

    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None:
        """A corruption, from the weakest severity on, and its mean."""
        row = "  ".join(f"{_percent(value):>6}" for value in accuracies)
        self._print(f"{checkpoint:<9} {name:<18} {_percent(sum(accuracies) / len(accuracies)):>6}  ({row})")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=not self._live, markup=False)
