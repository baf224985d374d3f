"""Files that are whole or absent: written atomically, read by their checksum; records that anybody may have written."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from regmix.types import UserError

T = TypeVar("T")

DIGEST = 16
PART = ".part"
TRIES = 20
"""How often a folder is read that changes meanwhile."""
PAUSE = 0.1
"""Seconds in which somebody who writes may come to a good end."""
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


def append(path: Path, text: str) -> None:
    """Adds text to the end of a file and flushes it to the disk. An OSError names `path`.

    A symbolic link is not followed: in a folder from somebody else it may lead anywhere.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o644), "a", encoding="utf-8") as file:
            file.write(text)
            flush(file)
    except OSError as error:
        raise named(error, path) from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        UserError: it holds anything else.
        FileNotFoundError: there is none.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: it is no text in UTF-8 (byte {error.start})") from None


def read_json(path: Path) -> Any:
    """The value in a JSON file; see `parse_json`.

    Raises:
        UserError: the file is damaged.
        FileNotFoundError: there is none.
    """
    return parse_json(read_text(path), path)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises what `read_json` does, and UserError for a value of another kind."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no object but a {type(value).__name__}")
    return value


def parse_json(text: str, source: Path | str) -> Any:
    """The value of a JSON text: every number in it is finite, every integer has 64 bits at most.

    Raises:
        UserError: no JSON, NaN or Infinity, a number beyond these, text that is no Unicode, or too deep a nesting; the
            message names `source`.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_short)
        if "\\ud" in text or "\\uD" in text:  # half a pair of surrogates cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except _UnfitError as unfit:
        word = str(unfit)
        line = next(line for line in text.splitlines() if word in line).strip()
        where = f": {line}" if len(line) < 100 else ""
        raise UserError(f"{source} is damaged: {word[:20]} is no number that a record holds{where}") from None
    except RecursionError:
        raise UserError(f"{source} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{source} is damaged: {error}") from None
    return value


class _UnfitError(Exception):
    """A number, as it is written, that no record holds."""


def _no_constant(name: str) -> NoReturn:
    raise _UnfitError(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _UnfitError(text)
    return value


def _short(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise _UnfitError(text)
    return value


def read_steadily(folder: Path, read: Callable[[], T]) -> T:
    """What `read` makes of a folder, all of one moment, although others may write into it meanwhile.

    It is read again where the folder has changed while it was read, or where something is wrong with it while somebody
    writes; where the changes have no end, the last reading counts.
    """
    for _ in range(TRIES):
        before = _moment(folder)
        try:
            found = read()
        except UserError:
            time.sleep(PAUSE)
            if _moment(folder) == before and not any(name.endswith(PART) for name, *_ in before):
                raise
        else:
            if _moment(folder) == before:
                return found
    return read()


def _moment(folder: Path) -> list[tuple[str, int, int, int]]:
    """What changes whenever something is written into a folder or the folders in it, two levels deep."""
    found = []
    for path in sorted([*folder.glob("*"), *folder.glob("*/*"), *folder.glob("*/*/*")]):
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def digest(path: Path) -> str:
    """A checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]


def named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))
