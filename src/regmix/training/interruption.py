"""SIGTERM, SIGHUP and Ctrl-C during a training, which is saved before it ends."""

import signal
from contextlib import AbstractContextManager
from types import FrameType

from regmix.runtime import processes
from regmix.runtime.signals import ending, handled, survive_hangup
from regmix.types import Interrupted


class Interruption:
    """Within `noted` the first SIGTERM, SIGHUP or Ctrl-C is only noted, until `check` raises it.

    A second signal ends the process at once. SIGHUP does not, because both the system and the shell send it when a
    terminal is closed.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._signals = (signal.SIGINT, *ending())

    def noted(self) -> AbstractContextManager[None]:
        """The block in which signals are noted; see `handled`."""
        return handled(self._note, *self._signals)

    def check(self) -> None:
        """Raises Interrupted if any process has noted a signal; all processes call it, with a consistent state."""
        if noted := max(processes.every(self._noted)):
            raise Interrupted(noted)

    def check_this_process(self) -> None:
        """Raises Interrupted if this process has noted a signal."""
        if self._noted:
            raise Interrupted(self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        survive_hangup(number)
        for each in self._signals:
            signal.signal(each, signal.SIG_DFL if each in (signal.SIGINT, signal.SIGTERM) else signal.SIG_IGN)
