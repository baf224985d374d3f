"""What the evaluations of a run directory hold, for tests that read or change it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def folder(run: Path, checkpoint: str = "last") -> Path:
    """The folder of the latest evaluation of a checkpoint."""
    found = [path.parent for path in (run / "evaluations").glob(f"{checkpoint}-*/evaluation.json")]
    assert found, f"{checkpoint} has no evaluation in {run}"
    return max(found, key=lambda path: (json.loads((path / "evaluation.json").read_text())["made"], path.name))


def record(run: Path, checkpoint: str = "last") -> dict[str, Any]:
    """The latest evaluation of a checkpoint."""
    found: dict[str, Any] = json.loads((folder(run, checkpoint) / "evaluation.json").read_text())
    return found


def change(run: Path, checkpoint: str, by: Callable[[dict[str, Any]], object]) -> None:
    """Changes the record of the latest evaluation of a checkpoint in place."""
    content = record(run, checkpoint)
    by(content)
    (folder(run, checkpoint) / "evaluation.json").write_text(json.dumps(content))


def evaluated(run: Path) -> set[str]:
    """The checkpoints that have an evaluation."""
    return {path.parent.name.split("-")[0] for path in (run / "evaluations").glob("*/evaluation.json")}


def table(run: Path, checkpoint: str = "last") -> list[list[str]]:
    """outcomes.csv, its header first."""
    with (folder(run, checkpoint) / "outcomes.csv").open() as file:
        return list(csv.reader(file))


def journals(run: Path) -> list[Path]:
    """The files of unfinished evaluations."""
    return sorted((run / "evaluations").glob("*/journal-*"))
