"""SIGTERM and Ctrl-C during a training: noted, so that what is under way can be saved first."""

import signal
from contextlib import AbstractContextManager
from types import FrameType

from regmix import processes
from regmix.signals import handled
from regmix.types import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside `noted`, the first SIGTERM or Ctrl-C is only noted, and `check` raises it; a second one ends the process
    at once."""

    def __init__(self) -> None:
        self._noted = 0

    def noted(self) -> AbstractContextManager[None]:
        """Where signals are noted; see `handled`."""
        return handled(self._note, *SIGNALS)

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
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
