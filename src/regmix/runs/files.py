"""Files that are whole or absent: written atomically, read by their checksum."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

DIGEST = 16
PART = ".part"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to the disk and renames it.

    Whatever goes wrong, `path` holds its old content or the whole new one, and no temporary file is left. An OSError
    names `path`.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=PART, delete=False) as file:
            temporary = Path(file.name)
            try:
                write(file)
                file.flush()
                os.fsync(file.fileno())
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


def digest(path: Path) -> str:
    """A checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]


def named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))
