"""Code by its name: from the current folder, behind what is installed, and every failure in one line."""

import sys
from pathlib import Path

import pytest

from regmix.runtime.imported import imported
from regmix.types import UserError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.startswith("own_")]:  # those of another test's folder
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_the_current_folder_comes_last(here: Path) -> None:
    (here / "own_a.py").write_text("import own_b\nmake = own_b.make\n")
    (here / "own_b.py").write_text("def make(): return 3\n")
    assert imported("own_a:make")() == 3
    assert sys.path[-1] == str(here)
    assert str(here) not in sys.path[:-1]


@pytest.mark.parametrize("name", ["json", "colorsys", "torch"])
def test_a_file_that_has_the_name_of_a_library_is_not_taken_for_it(name: str, here: Path) -> None:
    (here / f"{name}.py").write_text("def make(): return 3\n")
    with pytest.raises(UserError, match=f"another module has the name {name} .*; rename .*{name}.py"):
        imported(f"{name}:make")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "write module:function"),
        ("own", "write module:function"),
        (":make", "write module:function"),
        ("no_such:make", "cannot import no_such"),
        ("..own:make", "cannot import"),
        ("own_\x00:make", "cannot import"),
        ("own_exit:make", "SystemExit: 3"),
        ("own_wrong:make", "SyntaxError"),
        ("own_fails:make", "ZeroDivisionError: division by zero"),
        ("own_empty:make", "has no function make"),
        ("own_empty:__name__", "is no function but a value (str)"),
        ("own_empty.py:make", "write module:function, here own_empty:make"),
        ("./own_empty:make", "write module:function, here own_empty:make"),
        ("nets/own.py:make", "write module:function, here nets.own:make"),
        ("./nets.own:make", "write module:function, here nets.own:make"),
        ("/nowhere/own.py:make", "here own:make, in the folder /nowhere, or put that folder on PYTHONPATH"),
    ],
)
def test_every_failure_is_one_line(source: str, told: str, here: Path) -> None:
    (here / "own_exit.py").write_text("raise SystemExit(3)")
    (here / "own_wrong.py").write_text("def (")
    (here / "own_fails.py").write_text("1 / 0")
    (here / "own_empty.py").write_text("")
    with pytest.raises(UserError) as found:
        imported(source)
    assert told in str(found.value)
    assert "\n" not in str(found.value)
