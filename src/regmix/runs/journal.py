"""The journal of an unfinished evaluation."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from regmix.runtime.files import append, parse_json, read_text
from regmix.types import UserError

JOURNAL = "journal-{}-{}.jsonl"


class Journal:
    """The results of an unfinished evaluation: one line per chunk of examples, one file per process.

    A line that was cut off by a kill is ignored.
    """

    def __init__(self, folder: Path, key: str, rank: int = 0) -> None:
        """The key stands for everything that the outcome of a chunk depends on, except the attack and its radius."""
        self._folder, self._key = folder, key
        self._path = folder / JOURNAL.format(key, rank)
        self._broken: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for path in folder.glob(JOURNAL.format(key, "*")):
            for line in read_text(path).splitlines():
                with suppress(UserError, KeyError, TypeError):
                    row = parse_json(line, path)
                    self._broken[row["stage"], tuple(row["chunk"])] = row["broken"]

    def find(self, stage: str, chunk: Sequence[int]) -> list[int] | None:
        """Which rows of the chunk a stage has broken; None if that is not known yet."""
        return self._broken.get((stage, tuple(chunk)))

    def add(self, stage: str, chunk: Sequence[int], broken: Sequence[int]) -> None:
        """Records which rows of a chunk a stage has broken."""
        row = {"stage": stage, "chunk": list(chunk), "broken": list(broken)}
        self._folder.mkdir(parents=True, exist_ok=True)
        append(self._path, "\n" + json.dumps(row) + "\n")  # a line that a kill cut off must not merge with this one

    def remove(self) -> None:
        """Deletes the files of all processes: the evaluation is finished."""
        for path in self._folder.glob(JOURNAL.format(self._key, "*")):
            path.unlink(missing_ok=True)
