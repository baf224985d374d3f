"""`regmix report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from regmix.cli.flags import parse
from regmix.reports import write_report
from regmix.types import UserError


@dataclass(frozen=True)
class ReportFlags:
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("report.html")
    """The HTML file to write."""


def report(words: Sequence[str]) -> None:
    """Writes the report of one or several runs."""
    flags = parse(ReportFlags, words, "report")
    if not flags.runs:
        raise UserError("report needs at least one run directory; write: regmix report RUN -o report.html")
    write_report(flags.runs, flags.output)
    print(flags.output)
