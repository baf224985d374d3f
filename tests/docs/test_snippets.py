"""Commands and code in README and docs run, and the pages name what there is."""

import re
from pathlib import Path

import pytest

from docs.snippets import ROOT, blocks, pages, run, runs

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
BLOCKS = {name: [*blocks(page.read_text(encoding="utf-8"))] for name, page in PAGES.items()}
FAST = [name for name, shown in BLOCKS.items() if any(runs(block, slow=False) for block in shown)]
SLOW = [name for name, shown in BLOCKS.items() if any(block.note.startswith("slow") for block in shown)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def check_files_are_documented(folder: Path) -> None:
    """Every file that the page's commands left in a run directory is named on the page about run directories."""
    page = (ROOT / "docs/reference/run-directory.md").read_text(encoding="utf-8")
    for run_directory in {config.parent for config in folder.rglob("config.json")}:
        files = [file for file in run_directory.rglob("*") if file.is_file() and file.name[0] != "."]
        for file in (file for file in files if "adversarial" not in file.parts):
            assert f"`{re.sub(r'-[0-9]+-[0-9a-f]+[.]pt$', '-N-SUM.pt', file.name)}`" in page, file


@pytest.mark.parametrize("name", FAST)
def test_what_a_page_shows_runs(name: str, folder: Path) -> None:
    missing = run(PAGES[name], slow=False)
    check_files_are_documented(folder)
    if missing:
        pytest.skip(f"all but what needs {', '.join(sorted(missing))} has run")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_what_a_page_shows_runs_with_its_slow_parts(name: str, folder: Path) -> None:
    missing = run(PAGES[name], slow=True)
    check_files_are_documented(folder)
    if missing:
        pytest.skip(f"all but what needs {', '.join(sorted(missing))} has run")


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_run_or_says_why_not(name: str) -> None:
    for block in BLOCKS[name]:
        where = f"{name}:{block.line}"
        assert block.kind in ("bash", "python", "setup", "text") or block.kind.startswith("{"), where
        assert not block.note.startswith("skip") or re.fullmatch(r"skip \(.+\)", block.note), f"{where}: no reason"
        assert re.match(r"$|skip|slow$|(slow; )?(add |needs \w+$)|file ", block.note), (
            f"{where}: unknown note {block.note!r}"
        )


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
