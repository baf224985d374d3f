"""Which process works on what, for processes of several machines that share nothing but a folder.

A claim is a file that only one process can create. It names its owner, and the owner proves that it is alive by a file
of its own, which it touches every few seconds. Claims of owners that are gone do not count: the next claim of the same
work is another file with the next number, so that two processes that both find an owner gone cannot both take over.
"""

import hashlib
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from regmix.runtime.files import read_text

BEAT, LEASE = 5.0, 60.0
"""Seconds between two signs of life, and after how many without one an owner on another machine is gone."""
OWNER, CLAIM = "owner-{}", "claim-{}-{}"


class Claims:
    """The claims of one evaluation, in a folder that all processes see. `name` is that of this process.

    File systems need an exclusive creation of files (NFS from version 3, SMB, and cloud mounts that follow POSIX), and
    no locks. Clocks need not agree: an owner is gone if its file has not changed for `LEASE` seconds of the observer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = self._me = f"{_place()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._seen: dict[str, tuple[int, float]] = {}
        self._stop: threading.Event | None = None

    def take(self, work: str) -> bool:
        """Claims work; False if a living process has it. Work that has been done stays claimed until `leave`."""
        self._sign_in()
        name, number = hashlib.sha256(work.encode()).hexdigest()[:24], 0
        while True:
            path = self._folder / CLAIM.format(name, number)
            try:
                _create(path, self._me)
            except FileExistsError:
                owner = _owner(path)
                if owner == self._me:
                    if not (self._folder / CLAIM.format(name, number + 1)).exists():
                        return True
                elif self._is_alive(owner, path):
                    return False
                number += 1
            else:
                return True

    def leave(self) -> bool:
        """Signs off; returns whether no other process is left that may still need the claims, and then deletes them."""
        if self._stop is not None:
            self._stop.set()
        if not self._folder.is_dir():
            return True
        (self._folder / OWNER.format(self._me)).unlink(missing_ok=True)
        owners = [path.name.removeprefix(OWNER.format("")) for path in self._folder.glob(OWNER.format("*"))]
        if any(self._is_alive(owner) for owner in owners):
            return False
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
        with suppress(OSError):  # another process may have come meanwhile
            self._folder.rmdir()
        return True

    def _sign_in(self) -> None:
        if self._stop is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        mine, stop = self._folder / OWNER.format(self._me), threading.Event()
        mine.touch()

        def beat() -> None:
            with suppress(OSError):  # the folder is deleted when the evaluation is finished
                while not stop.wait(BEAT):
                    os.utime(mine)

        threading.Thread(target=beat, name="sign of life", daemon=True).start()
        self._stop = stop

    def _is_alive(self, owner: str, claim: Path | None = None) -> bool:
        """Whether an owner lives. Of a claim that names none, because it is being written, the age counts."""
        if owner:
            place, pid, _ = owner.rsplit("-", 2)
            if place == _place() and (int(pid) == os.getpid() or not _runs(int(pid))):
                return False  # an earlier evaluation of this process has ended
        watched = self._folder / OWNER.format(owner) if owner else claim
        assert watched is not None, "an owner without a name has a claim"
        try:
            changed = watched.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        known, since = self._seen.get(watched.name, (-1, now))
        if changed != known:
            since = now
        self._seen[watched.name] = changed, since
        return now - since < LEASE


def _create(path: Path, text: str) -> None:
    """Creates a file with its content at once, where the file system has hard links. FileExistsError if it is there."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    temporary.write_text(text, encoding="utf-8")
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    finally:
        temporary.unlink(missing_ok=True)


def _owner(claim: Path) -> str:
    """Who made a claim; empty while that is being written."""
    with suppress(OSError):
        text = read_text(claim)
        if text.count("-") >= 2 and text.rsplit("-", 2)[1].isdecimal():
            return text
    return ""


def _place() -> str:
    """A name of this machine, and of the group of processes that see each other's numbers."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _runs(pid: int) -> bool:
    """Whether a process of this machine exists."""
    if os.name == "nt":
        return True  # os.kill would end it there; its signs of life decide
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
