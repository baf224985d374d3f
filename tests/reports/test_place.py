"""No command writes its report over a file of the user's."""

import shutil
from pathlib import Path

import pytest

from regmix.cli.entry import main

TINY = "--train-examples 20 --validation 10 --epochs 1 --model.width 4 --averaging none"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reported") / "run"
    assert main(f"train digits-regmix {TINY} --out {path}".split()) == 0
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.jpg", b"\xff\xd8\xff"),
        ("notes.html", b"<!doctype html><html><body>mine</body></html>"),
        ("config.json", b"{}"),
        ("report.html", b"\n"),
    ],
)
def test_a_report_replaces_no_file_of_the_users(name: str, content: bytes, run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["report", str(run), "-o", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / name} exists and is not a report of regmix; give another place" in error
    assert (tmp_path / name).read_bytes() == content


def test_a_report_replaces_a_report_and_an_empty_file(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.touch()
    for _ in range(2):
        assert main(["report", str(run), "-o", str(page)]) == 0
        assert b"Written by regmix" in page.read_bytes()


def test_a_device_is_left_as_it_is(run: Path, capsys) -> None:
    assert main(["report", str(run), "-o", "/dev/null"]) == 2
    assert "/dev/null is no file" in capsys.readouterr().err
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (f"compare digits-regmix --methods regmix,fgsm_rs --seeds 1 {TINY}", "report.html"),
        (f"compare digits-regmix --methods regmix,fgsm_rs --seeds 1 {TINY}", "comparison.json"),
        (f"sweep digits-regmix --space lr=0.1,0.2 {TINY}", "sweep.html"),
        (f"sweep digits-regmix --space lr=0.1,0.2 {TINY}", "sweep.json"),
        (f"sweep digits-regmix --space lr=0.1,0.2 {TINY}", "report.html"),
        ("reproduce agr --scale digits", "claims.json"),
        ("reproduce agr --scale digits", "reproduce.html"),
    ],
)
def test_a_folder_with_a_file_of_the_users_of_this_name_is_refused_first(
    words: str, name: str, tmp_path: Path, capsys
) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    assert main([*words.split(), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / name} exists and is not a report of regmix" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_comparison_and_a_search_replace_their_own(tmp_path: Path) -> None:
    tiny = TINY + " --examples 20 --no-verdict --attacks clean"
    compare = f"compare digits-regmix --methods regmix,fgsm_rs --seeds 1 {tiny} --out {tmp_path / 'compared'}"
    sweep = f"sweep digits-regmix --space lr=0.1,0.2 {tiny} --out {tmp_path / 'swept'}"
    for words in (compare, sweep):
        for _ in range(2):
            assert main(words.split()) == 0
    shutil.rmtree(tmp_path)
