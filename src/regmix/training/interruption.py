"""SIGTERM, a closed terminal and Ctrl-C during a training: noted, so that what is under way can be saved first."""

import signal
from contextlib import AbstractContextManager
from types import FrameType

from regmix.runtime import processes
from regmix.runtime.signals import ending, handled, survive_hangup
from regmix.types import Interrupted


class Interruption:
    """Inside `noted`, the first SIGTERM, SIGHUP or Ctrl-C is only noted, and `check` raises it; a second one ends the
    process at once, unless it is SIGHUP, which the system and the shell both send when a terminal is closed."""

    def __init__(self) -> None:
        self._noted = 0
        self._signals = (signal.SIGINT, *ending())

    def noted(self) -> AbstractContextManager[None]:
        """Where signals are noted; see `handled`."""
        return handled(self._note, *self._signals)

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
        survive_hangup(number)
        for each in self._signals:
            signal.signal(each, signal.SIG_DFL if each in (signal.SIGINT, signal.SIGTERM) else signal.SIG_IGN)
