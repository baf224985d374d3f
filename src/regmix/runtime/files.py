"""Writes files atomically, and reads text and JSON that may be damaged or written by somebody else."""

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from regmix.types import UserError

T = TypeVar("T")

DIGEST = 16
PART = ".part"
TRIES = 20
"""How often `read_steadily` reads a folder that changes meanwhile."""
PAUSE = 0.1
"""Seconds that `read_steadily` gives a writer to finish."""
NO_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of fsync on file systems that do not support it."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to the disk and renames it to `path`.

    If anything fails, `path` keeps its old content and the temporary file is deleted.

    Raises:
        OSError: names `path`.
    """
    try:
        # Not named after `path`: its name may already have the greatest length allowed.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PART)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                flush(file)
            # Rename only after closing: Windows cannot rename an open file.
            with suppress(OSError):  # some file systems have no permissions
                temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise named(error, path) from error
    except RuntimeError as error:
        # torch's writer fails a second time when it closes the file, which hides the first error.
        if isinstance(error.__context__, OSError):
            raise named(error.__context__, path) from error
        raise


def flush(file: IO[Any]) -> None:
    """Flushes a file to the disk. File systems without fsync (some FUSE ones) decide themselves when to write."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise


def link(place: Path, source: Path) -> None:
    """Makes `place` a hard link to `source`, or a copy where the file system has no hard links."""
    try:
        place.hardlink_to(source)
    except OSError:
        with source.open("rb") as content:
            write_atomically(place, lambda file: shutil.copyfileobj(content, file))


def append(path: Path, text: str) -> None:
    """Adds text to the end of a file and flushes it to the disk.

    A symbolic link is not followed: in a folder from somebody else it could lead anywhere.

    Raises:
        OSError: names `path`.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o644), "a", encoding="utf-8") as file:
            file.write(text)
            flush(file)
    except OSError as error:
        raise named(error, path) from error


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        UserError: the file is not UTF-8.
        FileNotFoundError: there is no such file.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: it is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file; see `parse_json`.

    Raises:
        UserError: the file is damaged.
        FileNotFoundError: there is no such file.
    """
    return parse_json(read_text(path), path)


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        UserError: the file is damaged, or holds another kind of value.
        FileNotFoundError: there is no such file.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it must hold a JSON object, not a {type(value).__name__}")
    return value


def printable(name: str) -> str:
    """A name of the file system with what is not UTF-8 in it written as backslash codes, so that text may hold it."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def parse_json(text: str, source: Path | str) -> Any:
    """Parses JSON in which every number is finite and every integer fits into 64 bits.

    Raises:
        UserError: not JSON, a number that is not allowed, text that is not Unicode, or nested too deeply. The message
            names `source`.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_short)
        if "\\ud" in text or "\\uD" in text:  # a lone surrogate parses, but cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except _UnfitError as unfit:
        word = str(unfit)
        line = next(line for line in text.splitlines() if word in line).strip()
        where = f": {line}" if len(line) < 100 else ""
        raise UserError(f"{source} is damaged: {word[:20]} is not a number that a record may hold{where}") from None
    except RecursionError:
        raise UserError(f"{source} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{source} is damaged: {error}") from None
    return value


class _UnfitError(Exception):
    """The text of a number that a record may not hold."""


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
    """Calls `read` until the folder did not change meanwhile, so that the result shows one moment of it.

    An error of `read` is raised only if nobody is writing. After `TRIES` attempts the last reading counts.
    """
    for _ in range(TRIES):
        before = _moment(folder)
        try:
            value = read()
        except UserError:
            time.sleep(PAUSE)
            if _moment(folder) == before and not any(name.endswith(PART) for name, *_ in before):
                raise
        else:
            if _moment(folder) == before:
                return value
    return read()


def _moment(folder: Path) -> list[tuple[str, int, int, int]]:
    """Path, inode, size and time of every file, three levels deep: changes whenever something is written there."""
    files = []
    for path in sorted([*folder.glob("*"), *folder.glob("*/*"), *folder.glob("*/*/*")]):
        with suppress(FileNotFoundError):
            status = path.stat()
            files.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return files


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def digest(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]


def named(error: OSError, path: Path) -> OSError:
    """The same error, naming `path`."""
    return OSError(error.errno, error.strerror, str(path))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a JSON object by their path, such as method.alpha."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values
