"""Shows the progress of a training or an evaluation: a bar on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from regmix.runs.records import Epoch
from regmix.runtime import processes
from regmix.runtime.console import LastingConsole

ProgressTo = bool | Console
"""Where progress is shown: True on standard output, False nowhere, or a console of rich."""
RECENT = 5
"""Epochs whose speed the time left follows."""
FIRST_LINE, NEXT_LINE = 15.0, 60.0
"""Without a terminal: seconds from the start until the first line about an unfinished epoch or attack, and until the
next one."""


def shown(progress: ProgressTo) -> "ConsoleDisplay":
    """The display for a job; of several processes only rank 0 shows anything.

    A notebook gets plain lines: a bar would be saved there as thousands of outputs.
    """
    if isinstance(progress, bool):
        terminal = False if Console().is_jupyter else None  # its standard output passes for a terminal
        quiet = not progress or processes.started()[0] > 0
        progress = LastingConsole(quiet=quiet, force_jupyter=False, force_terminal=terminal)
    return ConsoleDisplay(progress)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


class ConsoleDisplay(AbstractContextManager["ConsoleDisplay"]):
    """Shows a training or an evaluation. On a terminal the lines scroll above the bar."""

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
        self._total = self._done = self._seen = 0
        self._began = time.perf_counter()
        self._printed = self._began + FIRST_LINE - NEXT_LINE
        self._stage = ""
        # Epoch and seconds of the latest epochs: the time left follows the present speed of a shared machine.
        self._latest: deque[tuple[int, float]] = deque(maxlen=RECENT + 1)

    def __enter__(self) -> "ConsoleDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begins work on `total` examples; an interrupted run has already done `done` of them."""
        self._total, self._done, self._seen = total, done, 0
        self._began = time.perf_counter()
        self._printed = self._began + FIRST_LINE - NEXT_LINE
        self._progress.update(self._task, description=description, total=total, completed=done)

    def batch(self, examples: int) -> None:
        """A batch is done."""
        if (found := self._due(examples)) is not None:
            rate, left = found
            share = _percent(self._done / self._total)
            self._print(f"{share} of the training done  {rate:.0f} images/s  about {left:.0f} s left")
        if self._live:
            self._progress.update(self._task, advance=examples)
            speed = self._progress.tasks[self._task].speed  # of the last half minute
            self._progress.update(self._task, rate=f"{speed:.0f} images/s" if speed else "")

    def _due(self, amount: int) -> tuple[float, float] | None:
        """Counts work that is done; its rate and the seconds left if it is time for a line about it."""
        self._seen += amount
        now = time.perf_counter()
        if self._live or now - self._printed <= NEXT_LINE:
            return None
        self._printed, rate = now, self._seen / (now - self._began)
        self._done, self._seen, self._began = self._done + self._seen, 0, now
        return rate, max(0, self._total - self._done) / rate

    def stage(self, description: str, left: int) -> None:
        """An attack begins. `left` is the remaining work with its own included, in the unit of `work`."""
        self._stage, self._total, self._done, self._seen = description, left, 0, 0
        self._began = time.perf_counter()
        done = self._progress.tasks[self._task].completed
        self._progress.update(self._task, description=description, total=done + left)

    def work(self, amount: int) -> None:
        """A part of an evaluation is done."""
        if (found := self._due(amount)) is not None:
            rate, left = found
            self._print(f"{self._stage}: {rate:.0f} passes/s  about {left:.0f} s left for the attacks on these weights")
        self._progress.update(self._task, advance=amount)

    def epoch(self, row: Epoch) -> None:
        """An epoch is done; `row` is its line of metrics.jsonl."""
        self._began = self._printed = time.perf_counter()
        self._done, self._seen = self._total * row.epoch // row.epochs, 0
        terms = ", ".join(f"{name} {value:.4f}" for name, value in row.terms.items())
        self._progress.update(
            self._task,
            description=f"epoch {min(row.epoch + 1, row.epochs)}/{row.epochs}, loss {row.loss:.3f}",
        )
        weights = ", ".join(
            f"{name.removesuffix('_weight')} {value:g}"
            for name, value in row.stats.items()
            if name.endswith("_weight") and row.epoch == 1
        )
        accuracies = ", ".join(
            f"{name} {f'{value:.2f}' if name == 'alignment' else _percent(value)}"
            for name, value in (row.validation or {}).items()
        )
        seconds, rate, waited = row.seconds or 0.0, row.images_per_second or 0.0, row.waited or 0.0
        parts = [
            f"epoch {row.epoch:>3}/{row.epochs}",
            f"loss {row.loss:.4f} ({terms})",
            f"weights per example: {weights}" if weights else "",
            f"validation: {accuracies}" if accuracies else "",
            f"{rate:.0f} images/s",
            f"{_percent(waited)} of the time waiting for data" if waited > 0.03 else "",
            f"{self._seconds_left(row.epoch, row.epochs, seconds):.0f} s left",
        ]
        self._print("  ".join(part for part in parts if part))

    def _seconds_left(self, epoch: int, epochs: int, seconds: float) -> float:
        """From the latest epochs; before there are two, from the mean since the start of the training."""
        if self._latest and epoch <= self._latest[-1][0]:  # the guard went back
            self._latest.clear()
        self._latest.append((epoch, seconds))
        (first, before), (last, now) = self._latest[0], self._latest[-1]
        pace = (now - before) / (last - first) if last > first else seconds / epoch
        return pace * (epochs - epoch)

    def alarm(self, text: str) -> None:
        """Prints an alarm of the guard."""
        self._print(f"ALARM {text}")

    def warn(self, text: str) -> None:
        """Prints a problem that did not end the work."""
        self._print(f"WARNING {text}")

    def note(self, text: str) -> None:
        """Prints a remark."""
        self._print(text)

    def column(self, checkpoint: str, name: str, accuracy: float, low: float, high: float, cost: str) -> None:
        """Prints the accuracy of a checkpoint under an attack, with its interval, and what the attack took."""
        interval = f"[{_percent(low)}, {_percent(high)}]"
        self._print(f"{checkpoint:<9} {name:<18} {_percent(accuracy):>6}  {interval:<16}  {cost}")

    def corruption(self, checkpoint: str, name: str, accuracies: Sequence[float]) -> None:
        """Prints the mean accuracy under a corruption, and the accuracies from the weakest severity on."""
        row = "  ".join(f"{_percent(value):>6}" for value in accuracies)
        self._print(f"{checkpoint:<9} {name:<18} {_percent(sum(accuracies) / len(accuracies)):>6}  ({row})")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=not self._live, markup=False)
