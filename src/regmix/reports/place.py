"""Where a report may be written: only in place of another one."""

from collections.abc import Iterable
from pathlib import Path

from regmix.types import UserError

PAGE = b"Written by regmix"
"""In the last line of every page."""
RECORDS = {"comparison.json": b'"methods"', "sweep.json": b'"validation_images"', "claims.json": b'"sections"'}
"""What shows that a record of this name is ours."""


def check_places(paths: Iterable[Path]) -> None:
    """Raises UserError if one of these files exists and is not a report of ours; an empty file counts as none."""
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file such as {path / 'report.html'}")
        if not path.exists():
            continue
        if not path.is_file():
            raise UserError(f"{path} is no file; give the name of one such as report.html")
        content = path.read_bytes()
        if content and RECORDS.get(path.name, PAGE) not in content:
            raise UserError(f"{path} exists and is not a report of regmix; give another place, or remove the file")
