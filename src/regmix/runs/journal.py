"""The journal of an unfinished evaluation."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from regmix.runs.claims import Claims
from regmix.runtime.files import append, parse_json, read_text
from regmix.types import UserError

JOURNAL = "journal-{}-{}.jsonl"
CLAIMS = "journal-{}-claims"


class Journal:
    """The results of an unfinished evaluation: one line per chunk of examples, one file per process.

    A line that was cut off by a kill is ignored. Several processes, of one machine or of several that share the folder,
    may work on the same evaluation: each claims a chunk before it begins with it, and reads the others' results.
    """

    def __init__(self, folder: Path, key: str, rank: int = 0) -> None:
        """The key stands for everything that the outcome of a chunk depends on, except the attack and its radius."""
        self._folder, self._key = folder, key
        self._claims = Claims(folder / CLAIMS.format(key))
        self._path = folder / JOURNAL.format(key, f"{rank}-{self._claims.name}")
        self._broken: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        self._read: dict[Path, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reads what other processes have written since."""
        for path in self._folder.glob(JOURNAL.format(self._key, "*")):
            with suppress(FileNotFoundError):  # the last process deletes the files
                size = path.stat().st_size
                if path != self._path and size != self._read.get(path):
                    self._read[path] = size
                    self._take_in(path)

    def _take_in(self, path: Path) -> None:
        for line in read_text(path).splitlines():
            with suppress(UserError, KeyError, TypeError):
                row = parse_json(line, path)
                # The first result that was read stays.
                self._broken.setdefault((row["stage"], tuple(row["chunk"])), row["broken"])

    def find(self, stage: str, chunk: Sequence[int]) -> list[int] | None:
        """Which rows of the chunk a stage has broken; None if that is not known yet."""
        return self._broken.get((stage, tuple(chunk)))

    def take_over(self, other: "Journal") -> None:
        """Takes the results of another journal, which is about the same weights, images and attacks."""
        self._broken = other._broken | self._broken

    def claim(self, stage: str, chunk: Sequence[int]) -> bool:
        """Whether this process may look at a chunk now: it is done, or no other living process works on it."""
        if self.find(stage, chunk) is not None:
            return True
        taken = self._claims.take(f"{stage} {list(chunk)}")
        self.refresh()  # whoever had the claim before may have finished
        return taken or self.find(stage, chunk) is not None

    def add(self, stage: str, chunk: Sequence[int], broken: Sequence[int]) -> None:
        """Records which rows of a chunk a stage has broken."""
        self._broken[stage, tuple(chunk)] = list(broken)
        row = {"stage": stage, "chunk": list(chunk), "broken": list(broken)}
        self._folder.mkdir(parents=True, exist_ok=True)
        append(self._path, "\n" + json.dumps(row) + "\n")  # a line that a kill cut off must not merge with this one

    def remove(self) -> None:
        """The evaluation is finished: deletes the files of all processes, unless one of them is still at work."""
        if self._claims.leave():
            for path in self._folder.glob(JOURNAL.format(self._key, "*")):
                path.unlink(missing_ok=True)
