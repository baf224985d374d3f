"""Handling of the signals that end a process."""

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def ending() -> tuple[int, ...]:
    """The signals that ask a process to end: SIGTERM, and SIGHUP, which a closed terminal sends.

    SIGHUP is left out where it does not exist (Windows) or is ignored (under nohup).
    """
    hangup: int | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hangup)


def survive_hangup(number: int) -> None:
    """After SIGHUP, ignores further ones and drops output to the closed terminal. Does nothing for other signals.

    The system and the shell may both send SIGHUP. Writing to a closed terminal would be an error.
    """
    if number != getattr(signal, "SIGHUP", None):
        return
    signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(nowhere, stream)
    os.close(nowhere)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Calls the handler on these signals inside the block, and restores the old handlers afterwards.

    Python allows this only in the main thread; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
