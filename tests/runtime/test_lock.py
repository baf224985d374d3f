"""One process at a time works on a run directory: on file systems with flock and without, and after a kill."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regmix.runtime import lock
from regmix.runtime.lock import locked
from regmix.types import UserError

NO_FLOCK = f"""
import fcntl, os
def refuse(*args):
    raise OSError({errno.EOPNOTSUPP}, os.strerror({errno.EOPNOTSUPP}))
fcntl.flock = refuse
"""
HOLDER = """
import sys
from pathlib import Path
from regmix.runtime.lock import locked
with locked(Path(sys.argv[1]), "trained", wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["flock", errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EBADF, "Windows"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    """A file system that has flock, or refuses it in one of the ways that there are; or a system without it."""

    def refuse(*args: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param == "Windows":
        monkeypatch.setattr(lock, "fcntl", None)
    elif request.param != "flock":
        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    return request.param


@contextmanager
def other_process(folder: Path, kind: object) -> Iterator[subprocess.Popen[str]]:
    program = HOLDER if kind == "flock" else NO_FLOCK + HOLDER
    words = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def enter(folder: Path, what: str = "trained", *, wait: bool = False) -> None:
    with locked(folder, what, wait=wait):
        pass


def test_one_at_a_time_and_again_afterwards(tmp_path: Path, kind: object) -> None:
    for _ in range(2):
        with locked(tmp_path, "trained", wait=False):
            with pytest.raises(UserError, match=f"is being trained by another process .pid {os.getpid()} on "):
                enter(tmp_path)
            enter(tmp_path, "evaluated")


def test_it_is_let_go_after_a_failure(tmp_path: Path, kind: object) -> None:
    with pytest.raises(KeyError), locked(tmp_path, "trained", wait=False):
        raise KeyError
    enter(tmp_path)


def test_who_waits_gets_it_afterwards(tmp_path: Path, kind: object) -> None:
    order, held = [], threading.Event()

    def first() -> None:
        with locked(tmp_path, "evaluated", wait=True):
            held.set()
            threading.Event().wait(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with locked(tmp_path, "evaluated", wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_waiting_has_an_end(tmp_path: Path, kind: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with locked(tmp_path, "evaluated", wait=True), pytest.raises(UserError, match="is being evaluated by another"):
        enter(tmp_path, "evaluated", wait=True)


@pytest.mark.slow
def test_another_process_is_named_and_a_killed_one_does_not_count(tmp_path: Path, kind: object) -> None:
    with other_process(tmp_path, kind) as process:
        with pytest.raises(UserError) as refused:
            enter(tmp_path)
        assert f"(pid {process.pid} on {socket.gethostname()})" in str(refused.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
        enter(tmp_path)


def test_a_marker_of_another_machine_can_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether that process is alive cannot be known here; the message says what to do."""
    monkeypatch.setattr(lock, "fcntl", None)
    marker = tmp_path / ".trained.marker"
    marker.write_text("1\nfar-away\n")
    with pytest.raises(UserError) as refused:
        enter(tmp_path)
    hint = f"(if it has already ended, delete {marker})"
    assert f"(pid 1 on far-away); wait for it, or end it {hint}" in str(refused.value)
    marker.unlink()
    enter(tmp_path)


def test_a_full_disk_keeps_nobody_from_locking(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with locked(tmp_path, "trained", wait=False), pytest.raises(UserError, match="by another process; wait for"):
            enter(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed:
        enter(tmp_path / "absent")
    assert failed.value.filename == str(tmp_path / "absent" / ".trained.lock")
