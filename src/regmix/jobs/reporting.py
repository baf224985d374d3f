"""Writes the report of runs."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regmix.arguments import checked
from regmix.jobs.training import path_of
from regmix.reports import write_report
from regmix.runs import REPORT, Run


@dataclass(frozen=True)
class Report:
    """A report that was written; a notebook shows it as a link."""

    path: Path
    """The HTML file."""

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        name = html.escape(str(self.path))
        return f'<p>Report: <a href="{name}" target="_blank">{name}</a></p>'


@checked
def report(runs: str | Path | Run | Sequence[str | Path | Run], out: str | Path | None = None) -> Report:
    """Writes one self-contained HTML file about one or several runs, as `regmix report` does.

    Args:
        out: the file; None: report.html in the directory of the run, or in the current folder for several runs.

    Raises:
        UserError: no run, a folder that is not a run directory, a damaged file, or a missing output folder.
    """
    paths = [path_of(run) for run in ([runs] if isinstance(runs, str | Path | Run) else runs)]
    place = Run.open(paths[0]).path if len(paths) == 1 else Path()
    file = place / REPORT if out is None else Path(out)
    write_report(paths, file)
    return Report(file)
