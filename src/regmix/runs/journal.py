"""What an unfinished evaluation has found so far."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from regmix.runs.files import named

BATTERY = "battery-{}-{}.jsonl"


class BatteryJournal:
    """What an unfinished evaluation has found so far: a line per chunk of examples, in a file per process.

    Lines of other settings (another key) are passed over, and so is one that a kill has cut off.
    """

    def __init__(self, folder: Path, checkpoint: str, key: str, rank: int = 0) -> None:
        self._key = key
        self._path = folder / BATTERY.format(checkpoint, rank)
        self._found: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for path in folder.glob(BATTERY.format(checkpoint, "*")):
            for line in path.read_text().splitlines():
                with suppress(json.JSONDecodeError, KeyError, TypeError):
                    row = json.loads(line)
                    if row["key"] == key:
                        self._found[row["stage"], tuple(row["chunk"])] = row["broken"]

    def find(self, stage: str, chunk: Sequence[int]) -> list[int] | None:
        """Which rows of the chunk a stage has broken; None if that is not known yet."""
        return self._found.get((stage, tuple(chunk)))

    def add(self, stage: str, chunk: Sequence[int], broken: Sequence[int]) -> None:
        """Writes down what a stage has done to a chunk."""
        row = {"key": self._key, "stage": stage, "chunk": list(chunk), "broken": list(broken)}
        try:
            with self._path.open("a") as file:
                # A line that a kill cut off must not swallow this one.
                file.write("\n" + json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise named(error, self._path) from error
