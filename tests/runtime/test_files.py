"""Files are whole or absent, whatever a file system refuses."""

import errno
import os
import stat
from pathlib import Path

import pytest

from regmix.runs import Run
from regmix.runs.records import Environment
from regmix.runtime.files import flush, read_steadily, write_atomically
from regmix.types import UserError


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[object]:
    """Lets a function of os fail as a file system would make it; returns what it is asked for."""
    asked: list[object] = []

    def refused(*args: object, **more: object) -> None:
        asked.append(args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, refused)
    return asked


def test_the_whole_content_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"old", 0o644)

    def fails(file) -> None:
        file.write(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as failed:
        write_atomically(path, fails)
    assert failed.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_what_is_renamed_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows renames no open file."""
    real, renamed = os.replace, []

    def replace(source: str, target: str) -> None:
        inode = os.stat(source).st_ino  # noqa: PTH116  what os.replace is given may be a text
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
            try:
                assert os.fstat(int(number)).st_ino != inode, "renamed while it is open"
            except OSError:
                continue
        renamed.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    Run.create(tmp_path / "run", "{}", Environment()).save_state({"epoch": 1}, healthy=True)
    assert renamed[:4] == ["file", "config.json", "environment.json", ".state.part"]
    assert renamed[4].startswith("state-000001-")


@pytest.mark.parametrize("name", ["a" * 255, "漢" * 85])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, lambda file: file.write(b"new"))
    assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("call", "number"),
    [
        *(("chmod", number) for number in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)),
        *(("fsync", number) for number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)),
    ],
)
def test_a_file_system_that_lacks_a_call(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = refuse(monkeypatch, call, number)
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "file").read_bytes() == b"new"
    assert asked


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_is_told_of(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "fsync", number)
    with pytest.raises(OSError, match=os.strerror(number)), (tmp_path / "file").open("w") as file:
        flush(file)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomically(tmp_path / "other", lambda file: file.write(b"new"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [0, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_healthy_state_outlives_the_states(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hard links and without."""
    asked = refuse(monkeypatch, "link", number) if number else []
    run = Run.create(tmp_path / "run", "{}", Environment())
    for epoch in range(1, 5):
        run.save_state({"epoch": epoch}, healthy=epoch == 1)
    assert run.load_healthy_state() == {"epoch": 1}
    assert run.load_state(pytest.fail) == {"epoch": 4}
    assert len([*run.path.glob("state-*")]) == 2
    assert len([*run.path.glob("healthy-*")]) == 1
    assert len(asked) == (1 if number else 0)


def test_a_folder_is_read_as_of_one_moment(tmp_path: Path) -> None:
    """Two files that are written one after the other are never seen as old and new."""
    one, other = tmp_path / "one", tmp_path / "other"
    left = [2, 1]
    one.write_text("3")
    other.write_text("3")

    def read() -> tuple[str, str]:
        first = one.read_text()
        if left:  # somebody writes between the two
            for path in (one, other):
                write_atomically(path, lambda file, text=str(left[-1]): file.write(text.encode()))
            left.pop()
        return first, other.read_text()

    assert read_steadily(tmp_path, read) == ("2", "2")


def test_what_is_wrong_is_read_again_only_while_somebody_writes(tmp_path: Path) -> None:
    calls = []

    def read() -> int:
        calls.append(1)
        if len(calls) == 3:
            (tmp_path / ".x.part").unlink()
            return 7
        raise UserError("they do not agree")

    with pytest.raises(UserError, match="do not agree"):
        read_steadily(tmp_path, read)
    assert len(calls) == 1
    (tmp_path / ".x.part").touch()
    assert read_steadily(tmp_path, lambda: read() if len(calls) < 3 else 8) == 8


def test_changes_without_end_do_not_keep_from_reading(tmp_path: Path) -> None:
    calls = []

    def read() -> int:
        calls.append(1)
        (tmp_path / "log").write_text("." * len(calls))
        return len(calls)

    assert read_steadily(tmp_path, read) == len(calls) == 21
