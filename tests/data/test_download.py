import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from regmix.data import download
from regmix.data.download import Archive, fetch, fetch_and_unpack, unpack
from regmix.types import UserError

CONTENT = np.random.RandomState(0).bytes(1_000_000)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one content under every path, and keeps the Range header of every request."""

    content = CONTENT
    cut_after: int | None = None
    ranges_work = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges_work else 0
        if self.path == "/absent" or first >= len(server.content):
            self.send_error(404 if self.path == "/absent" else 416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(server.content) - first))
        self.end_headers()
        self.wfile.write(server.content[first : server.cut_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_whole_download(server, tmp_path, capfd):
    target = tmp_path / "file"
    fetch(server.url, target, md5(CONTENT))
    assert target.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [target]
    assert capfd.readouterr().err == f"downloading {server.url}\n"


def test_a_terminal_shows_progress(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    fetch(server.url, tmp_path / "file", md5(CONTENT))
    shown = capfd.readouterr().err
    assert "file.tar.gz" in shown
    assert "1.0/1.0 MB" in shown


def test_an_interrupted_download_resumes_where_it_stopped(server, tmp_path):
    target, part = tmp_path / "file", tmp_path / "file.part"
    server.cut_after = 300_000
    with pytest.raises(UserError, match=rf"cut after 300000 of 1000000 bytes; .* kept in {part}, run again to res"):
        fetch(server.url, target, md5(CONTENT))
    assert part.read_bytes() == CONTENT[:300_000]
    assert not target.exists()

    server.cut_after = None
    fetch(server.url, target, md5(CONTENT))
    assert target.read_bytes() == CONTENT
    assert not part.exists()
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_cannot_resume_starts_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    server.ranges_work = False
    fetch(server.url, tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_already_complete_is_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(server.url, tmp_path / "file", md5(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"from another file"])
def test_a_wrong_checksum_removes_what_arrived(server, tmp_path, part):
    (tmp_path / "file.part").write_bytes(part)
    with pytest.raises(UserError, match="arrived damaged"):
        fetch(server.url, tmp_path / "file", md5(CONTENT if part else b"other"))
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_there_is_checked_but_not_fetched(server, tmp_path):
    target = tmp_path / "file"
    target.write_bytes(CONTENT)
    fetch(server.url, target, md5(CONTENT))
    target.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"file is damaged .*delete it and run again"):
        fetch(server.url, target, md5(CONTENT))
    assert not server.asked


def test_an_absent_file_and_an_absent_server_are_reported(server, tmp_path):
    with pytest.raises(UserError, match=r"absent failed: HTTP Error 404: Not Found$"):
        fetch(server.url.replace("file.tar.gz", "absent"), tmp_path / "file", md5(CONTENT))
    with pytest.raises(UserError, match=r"^downloading http://127\.0\.0\.1:1/x failed: .*refused"):
        fetch("http://127.0.0.1:1/x", tmp_path / "file", md5(CONTENT))


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as mute, pytest.raises(UserError, match="timed out"):
        fetch(f"http://127.0.0.1:{mute.server_port}/", tmp_path / "file", md5(CONTENT))


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, linkname
    return member


def test_an_archive_is_fetched_and_its_folder_appears(server, tmp_path):
    server.content = tar_of((tar_member("set/a.txt"), b"hello"), (tar_member("set/b/c.txt"), b"there"))
    archive = Archive(server.url, md5(server.content), "set")
    fetch_and_unpack(archive, tmp_path / "new" / "root")
    root = tmp_path / "new" / "root"
    assert (root / "set" / "a.txt").read_bytes() == b"hello"
    assert (root / "set" / "b" / "c.txt").read_bytes() == b"there"
    assert sorted(path.name for path in root.iterdir()) == ["file.tar.gz", "set"]


def test_an_incomplete_folder_is_not_overwritten(server, tmp_path):
    server.content = tar_of((tar_member("set/a.txt"), b"hello"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=rf"cannot be unpacked into {tmp_path}: .*not empty"):
        fetch_and_unpack(Archive(server.url, md5(server.content), "set"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.tar.gz", "set"]


@pytest.mark.parametrize(
    "member",
    [
        tar_member("../evil"),
        tar_member("set/../../evil"),
        tar_member("/tmp/evil"),
        tar_member("set/link", tarfile.SYMTYPE, "/etc/passwd"),
        tar_member("set/link", tarfile.SYMTYPE, "a.txt"),
        tar_member("set/link", tarfile.LNKTYPE, "a.txt"),
        tar_member("set/device", tarfile.CHRTYPE),
        tar_member("set/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_a_tar_with_a_dangerous_member_is_refused_before_anything_is_written(tmp_path, member):
    archive, folder = tmp_path / "x.tar.gz", tmp_path / "out"
    archive.write_bytes(tar_of((tar_member("set/a.txt"), b"hello"), (member, b"")))
    folder.mkdir()
    with pytest.raises(UserError, match=rf"x\.tar\.gz is refused: its member '{member.name}'"):
        unpack(archive, folder)
    assert not list(folder.iterdir())


def zip_entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


@pytest.mark.parametrize("entry", [zip_entry("../evil"), zip_entry("/evil"), zip_entry("link", 0o120777)])
def test_a_zip_with_a_dangerous_member_is_refused(tmp_path, entry):
    archive, folder = tmp_path / "x.zip", tmp_path / "out"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "hello")
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match=r"x\.zip is refused: its member"):
        unpack(archive, folder)
    assert not folder.exists()


def test_a_zip_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("set/a.txt", "hello")
        file.writestr(zip_entry("set/b.txt", 0o100644), "there")
        file.mkdir("set/c")
    unpack(tmp_path / "x.zip", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "set").iterdir()) == ["a.txt", "b.txt", "c"]


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_damaged_archives_are_named(tmp_path, name):
    whole = tar_of((tar_member("a.txt"), CONTENT)) if name == "x.tar.gz" else b"PK\x03\x04 no zip"
    for content in (b"", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{re.escape(name)} cannot be unpacked"):
            unpack(tmp_path / name, tmp_path / "out")


def altered(content: bytes, *changes: tuple[int, bytes]) -> bytes:
    changed = bytearray(content)
    for place, new in changes:
        changed[place : place + len(new)] = new
    return bytes(changed)


def one_zip(compression: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", compression) as file:
        file.writestr("a", CONTENT[:5000])
    return held.getvalue()


def one_tar(mode: str, **headers: str) -> bytes:
    held, member = io.BytesIO(), tarfile.TarInfo("a")
    member.pax_headers, member.size = headers, 5000
    with tarfile.open(fileobj=held, mode=mode) as file:
        file.addfile(member, io.BytesIO(CONTENT[:5000]))
    return held.getvalue()


def with_flag(place: int, value: bytes) -> bytes:
    """A zip with another value in its local header (at `place`) and in the central one (2 bytes further on)."""
    content = one_zip()
    return altered(content, (place, value), (content.index(b"PK\x01\x02") + place + 2, value))


NOISE = bytes(range(1, 51))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("encrypted.zip", with_flag(6, b"\x01\x00")),
        ("unknown-compression.zip", with_flag(8, b"\x63\x00")),
        ("version.zip", with_flag(4, b"\xff\x00")),
        ("lzma.zip", altered(one_zip(zipfile.ZIP_LZMA), (200, NOISE))),
        ("bz2.zip", altered(one_zip(zipfile.ZIP_BZIP2), (200, NOISE))),
        ("deflate.zip", altered(one_zip(zipfile.ZIP_DEFLATED), (200, NOISE))),
        ("checksum.zip", altered(one_zip(), (60, NOISE))),
        ("x.tar.xz", altered(one_tar("w:xz"), (2000, NOISE))),
        ("x.tar.bz2", altered(one_tar("w:bz2"), (2000, NOISE))),
        ("x.tar.gz", altered(one_tar("w:gz"), (2000, NOISE))),
        ("size.tar", one_tar("w", size="99999999999999999999")),
        ("negative.tar", one_tar("w", size="-512")),
        ("time.tar", one_tar("w", mtime="nan")),
        ("far-time.tar", one_tar("w", mtime="1e300")),
    ],
)
def test_archives_that_cannot_be_read_are_named_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(name)} cannot be unpacked: \S") as refused:
        unpack(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(refused.value)
