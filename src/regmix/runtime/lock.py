"""A lock on a run directory, for one kind of work, that works on every file system and does not outlive its holder."""

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
"""Seconds after which one who waits gives up."""
PAUSE = 0.05
"""Seconds between two tries."""
HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
"""What flock answers where somebody else has the lock; all other answers mean that it cannot lock here."""


@contextmanager
def locked(folder: Path, what: str, *, wait: bool) -> Iterator[None]:
    """Keeps other processes from the same kind of work on a folder, as long as this one is inside and alive.

    The lock is flock's on a file of its own, which a process loses when it dies. Where flock is missing (Windows, some
    network file systems) it is a file that names the process and is deleted at the end; one that a killed process of
    the same machine has left behind does not count.

    Args:
        folder: a folder that this process may write into.
        what: what is done to the folder, as a participle: "trained". Work of other names is not kept out.
        wait: whether to wait until another process is done, for minutes at most.

    Raises:
        UserError: another process does it. The message says which, as far as that is known.
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
            left = f" (if that one has ended, delete {marker})" if marker.exists() else ""
            raise UserError(f"{folder} is being {what} by another process{holder}; wait for it, or end it{left}")
        yield


def _take(lock: Path, marker: Path, held: ExitStack) -> str | None:
    """Takes the lock into `held`, or says who has it."""
    if fcntl is not None:
        with ExitStack() as opened:
            # Network file systems give an exclusive lock to those alone who may write.
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
    # Only here, because most systems never need it.
    from filelock import SoftFileLock, Timeout

    try:
        held.enter_context(SoftFileLock(marker).acquire(timeout=0))
    except Timeout:
        return _holder(marker)
    return None


def _sign(file: IO[bytes]) -> None:
    """Writes into the lock who has it; a full disk keeps nobody from locking."""
    with suppress(OSError):
        file.truncate(0)
        file.write(f"{os.getpid()}\n{socket.gethostname()}\n".encode())


def _holder(path: Path) -> str:
    """Who has signed, in brackets; nothing if that cannot be read."""
    with suppress(OSError, ValueError):
        number, host = path.read_text(encoding="utf-8").split("\n")[:2]
        return f" (pid {int(number)} on {host.partition('?')[0]})"  # filelock adds its own words after a ?
    return ""
