"""What is printed where the terminal has not all letters."""

import io
import sys

import pytest

from regmix.cli.entry import main


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", "\\xe7\\u6f22"), ("latin-1", "\xe7\\u6f22"), ("cp1252", "\xe7\\u6f22"), ("utf-8", "\xe7\u6f22")],
)
def test_a_letter_that_the_terminal_has_not_is_shown_as_its_code(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(held, encoding=encoding))
    assert main(["report", "\xe7\u6f22", "-o", "r.html"]) == 2
    sys.stderr.flush()
    assert f"{shown} is not a run directory" in held.getvalue().decode(encoding)


def test_a_name_of_bytes_that_are_no_text_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="utf-8"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(held, encoding="utf-8"))
    assert main(["report", "\udcff", "-o", "r.html"]) == 2
    sys.stderr.flush()
    assert "\\udcff is not a run directory" in held.getvalue().decode()
