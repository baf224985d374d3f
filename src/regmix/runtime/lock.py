"""A lock on a run directory that works on every file system and ends with the process that holds it."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from regmix.runtime.files import named
from regmix.types import UserError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOCK = ".{}.lock"
MARKER = ".{}.marker"
PATIENCE = 300.0
"""Seconds to wait before giving up."""
PAUSE = 0.05
"""Seconds between two tries."""
HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
"""Errors of flock when another process has the lock. All other errors mean that flock does not work here."""


@contextmanager
def locked(folder: Path, what: str, *, wait: bool) -> Iterator[None]:
    """Keeps other processes from doing the same work on a folder inside the block.

    The lock is flock on a separate file; the system releases it when the process dies. Where flock is missing (Windows,
    some network file systems) a marker file names the process and is deleted at the end. A marker of a dead process of
    the same machine does not count.

    Args:
        folder: a folder that this process may write into.
        what: the work as a participle, such as "trained". Work of another name is not blocked.
        wait: wait until the other process is done, at most `PATIENCE` seconds.

    Raises:
        UserError: another process has the lock. The message names it where that is known.
    """
    deadline = time.monotonic() + (PATIENCE if wait else 0)
    lock, marker = folder / LOCK.format(what), folder / MARKER.format(what)
    with ExitStack() as held:
        try:
            while (holder := _take(lock, marker, held)) is not None:
                if time.monotonic() >= deadline:
                    break
                time.sleep(PAUSE)
        except OSError as error:
            raise named(error, lock) from error
        if holder is not None:
            hint = f" (if it has already ended, delete {marker})" if marker.exists() else ""
            raise UserError(f"{folder} is being {what} by another process{holder}; wait for it, or end it{hint}")
        yield


def _take(lock: Path, marker: Path, held: ExitStack) -> str | None:
    """Takes the lock into `held` and returns None, or returns who has it."""
    if fcntl is not None:
        with ExitStack() as opened:
            # Open for writing: network file systems give an exclusive lock only then.
            file = opened.enter_context(lock.open("ab", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in HELD:
                    return _holder(lock)
            else:
                _sign(file)
                held.push(opened.pop_all())
                return None
    return _take_marker(marker, held)


def _take_marker(marker: Path, held: ExitStack) -> str | None:
    # Imported here, because most systems never need it.
    from filelock import SoftFileLock, Timeout

    try:
        held.enter_context(SoftFileLock(marker).acquire(timeout=0))
    except Timeout:
        return _holder(marker)
    return None


def _sign(file: IO[bytes]) -> None:
    """Writes into the lock file which process has it."""
    with suppress(OSError):  # the lock holds even if the disk is full
        file.truncate(0)
        file.write(f"{os.getpid()}\n{socket.gethostname()}\n".encode())


def _holder(path: Path) -> str:
    """The process that the file names, in brackets; an empty string if it cannot be read."""
    with suppress(OSError, ValueError):
        number, host = path.read_text(encoding="utf-8").split("\n")[:2]
        return f" (pid {int(number)} on {host.partition('?')[0]})"  # filelock adds text after a ?
    return ""
