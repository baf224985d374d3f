"""Files that are whole or absent: written atomically, read by their checksum."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

DIGEST = 16
PART = ".part"
NO_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What fsync answers where a file system does not have it."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to the disk and renames it.

    Whatever goes wrong, `path` holds its old content or the whole new one, and no temporary file is left. An OSError
    names `path`.
    """
    try:
        # Not named after `path`, whose name may be as long as names may be.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PART)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                flush(file)
            # Closed by now, because Windows renames no open file.
            with suppress(OSError):  # some file systems give all files the same rights
                temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise named(error, path) from error
    except RuntimeError as error:
        # torch's writer fails once more while it closes the file, and so hides why.
        if isinstance(error.__context__, OSError):
            raise named(error.__context__, path) from error
        raise


def flush(file: IO[Any]) -> None:
    """Brings what was written to the disk, as far as the file system can be told to (some of FUSE's cannot)."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise


def link(place: Path, source: Path) -> None:
    """Makes `place` the same file as `source`; where the file system knows no hard links, a copy of it."""
    try:
        place.hardlink_to(source)
    except OSError:
        with source.open("rb") as content:
            write_atomically(place, lambda file: shutil.copyfileobj(content, file))


def digest(path: Path) -> str:
    """A checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]


def named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))
