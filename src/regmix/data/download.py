"""Downloads that resume and are verified, and safe unpacking of archives."""

import hashlib
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from regmix.runtime.console import LastingConsole
from regmix.types import UserError

CHUNK = 1 << 16
TIMEOUT = 30.0
"""Seconds without data after which a connection counts as lost."""


class Archive(NamedTuple):
    """URL of an archive, its md5, and the folder that it unpacks to."""

    url: str
    md5: str
    folder: str


def fetch_and_unpack(archive: Archive, root: Path) -> None:
    """Downloads an archive into `root`, unless it is there already, and unpacks its folder there.

    The folder appears only when it is complete.

    Raises:
        UserError: see `fetch` and `unpack`.
    """
    target = root / archive.url.rpartition("/")[2]
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(archive.url, target, archive.md5)
        with tempfile.TemporaryDirectory(dir=root, prefix=".unpack-") as folder:
            unpack(target, Path(folder))
            (Path(folder) / archive.folder).rename(root / archive.folder)
    except OSError as error:
        raise UserError(f"{target} cannot be unpacked into {root}: {error}") from error


def fetch(url: str, target: Path, md5: str) -> None:
    """Downloads `url` to `target` and checks its md5. An existing target is only checked.

    Data goes to `target`.part first, from which an interrupted download resumes.

    Raises:
        UserError: the network fails (the part is kept), or the md5 is wrong (the part is deleted).
    """
    if target.exists():
        if _md5(target) != md5:
            raise UserError(f"{target} is damaged (its md5 is not {md5}); delete it and run again")
        return
    part = target.with_name(target.name + ".part")
    try:
        _stream(url, part)
    except (OSError, HTTPException) as error:
        kept = f"; the part that has arrived is kept in {part}, run again to resume" if part.exists() else ""
        raise UserError(f"downloading {url} failed: {error}{kept}") from error
    if _md5(part) != md5:
        part.unlink()
        raise UserError(f"{url} arrived damaged (its md5 is not {md5}) and was deleted; run again to download it anew")
    part.rename(target)


def _stream(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "regmix"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        # 416: the part is already complete; the checksum decides whether it is right.
        if have and error.code == 416:
            return
        raise
    with response:
        # Any status but 206 means that the server sends the whole file again.
        have = have if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file, _progress(url, have, total) as advance:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
    # A broken connection looks like the end of the file.
    if total is not None and part.stat().st_size < total:
        raise OSError(f"the connection was cut after {part.stat().st_size} of {total} bytes")


@contextmanager
def _progress(url: str, have: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on a terminal, else one line. Yields a function to call with the number of new bytes."""
    console = LastingConsole(stderr=True)
    if not console.is_terminal:
        console.print(f"downloading {url}", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(url.rpartition("/")[2], total=total, completed=have)
        yield lambda count: bar.advance(task, count)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a .zip or tar archive into `folder`.

    Raises:
        UserError: a member is a link, a device, or lies outside of the folder (then nothing is written); or the
            archive is damaged, encrypted or of an unknown compression.
    """
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                for entry in zipped.infolist():
                    kind = entry.external_attr >> 28  # The file type of st_mode: 0 unknown, 4 folder, 8 file.
                    _check_member(archive, entry.filename, kind in (0, 4, 8))
                zipped.extractall(folder)
        else:
            with tarfile.open(archive) as tarred:
                for member in tarred.getmembers():
                    _check_member(archive, member.name, member.isreg() or member.isdir())
                # Read to the end, where .gz has its checksum.
                while tarred.fileobj is not None and tarred.fileobj.read(CHUNK):
                    pass
                tarred.extractall(folder, filter="data")
    except UserError:
        raise
    except Exception as error:  # the libraries raise many kinds of exceptions on damaged or encrypted archives
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{archive} cannot be unpacked: {cause}; delete it and fetch it again") from error


def _check_member(archive: Path, name: str, plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if not plain or path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive} is refused: its member {name!r} is a link or lies outside of the archive")
