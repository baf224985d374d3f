"""Signals, where Python lets a program handle them."""

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def ending() -> tuple[int, ...]:
    """The signals by which a process is asked to end: SIGTERM, and SIGHUP, which a terminal sends that is closed.

    SIGHUP is left out where it does not exist (Windows) or is ignored, as nohup has it.
    """
    hangup: int | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hangup)


def survive_hangup(number: int) -> None:
    """After SIGHUP: others are ignored, for the system and the shell may both send one; and what is written to a
    terminal that is gone is dropped, which would be an error else."""
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
    """Inside, these signals call the handler; afterwards they do what they did before.

    Python allows this in the main thread alone; in others nothing changes.
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
