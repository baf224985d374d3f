"""SIGTERM and Ctrl-C during a training: noted, so that what is under way can be saved first."""

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType

from regmix import processes
from regmix.types import Interrupted


class Interruption(AbstractContextManager["Interruption"]):
    """Inside, the first SIGTERM or Ctrl-C is only noted, and `check` raises it; a second one ends the process at once.

    Python allows this in the main thread alone; in others signals do what they did before.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises Interrupted if a signal has come to any process; all call it, where everything is in order."""
        if noted := max(processes.every(self._noted)):
            raise Interrupted(noted)

    def check_alone(self) -> None:
        """Raises Interrupted if a signal has come to this process."""
        if self._noted:
            raise Interrupted(self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
