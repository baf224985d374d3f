"""Parquet files as stores of encoded images, read one row group at a time."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Protocol

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from regmix.data.decode import Encoded, import_optional
from regmix.data.stored import WINDOW, Identity
from regmix.types import UserError


class Store(Protocol):
    """Opens files, wherever they are."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file by its name, for random access."""
        ...

    def identity(self, name: str) -> Identity:
        """The identity of a file, which shows whether it has changed."""
        ...


@dataclass(frozen=True)
class Disk:
    """Files below a folder of this machine."""

    root: Path

    def open(self, name: str) -> BinaryIO:
        """Opens a file by its path, which includes the folder's."""
        return Path(name).open("rb")

    def identity(self, name: str) -> Identity:
        """The file's name below the folder, its size and time."""
        return Identity.of(Path(name), self.root)


@dataclass(frozen=True)
class Shard:
    """A parquet file with its metadata and the name of its image column."""

    name: str
    store: Store
    metadata: Any
    column: str

    @cached_property
    def rows(self) -> list[int]:
        """The number of rows of each row group."""
        return [self.metadata.row_group(number).num_rows for number in range(self.metadata.num_row_groups)]


class RowGroups:
    """The images of parquet files, numbered through all files; groups of rows are read as a whole and cached.

    Of a group only the `wanted` rows are kept (sorted; None: all).
    """

    def __init__(self, shards: Sequence[Shard], wanted: Int64[np.ndarray, "wanted"] | None = None) -> None:
        self._shards, self._wanted = shards, wanted
        self._groups = [
            (shard, group, first)
            for shard in shards
            for group, first in enumerate([*accumulate(shard.rows, initial=0)][:-1])
        ]
        *self.starts, self._len = accumulate((rows for shard in shards for rows in shard.rows), initial=0)
        # Group to its images and the clock of its last access, in the order of access.
        self._kept: dict[int, tuple[Future[dict[int, bytes | None]], int]] = {}
        self._clock, self._lock = 0, Lock()

    def __len__(self) -> int:
        return self._len

    def only(self, numbers: Int64[Tensor, "chosen"]) -> "RowGroups":
        """The same rows, of which only these will be read."""
        return RowGroups(self._shards, np.unique(numbers.numpy()))

    def identity(self, numbers: Int64[Tensor, "chosen"]) -> list[Identity]:
        """The identity of each of these rows: its file's identity and its number in the file."""
        files = {shard.name: shard.store.identity(shard.name) for shard in self._shards}
        identities = []
        for number in numbers.tolist():
            shard, _, _, row = self._locate(number)
            file = files[shard.name]
            identities.append(file._replace(name=f"{file.name} row {row}"))
        return identities

    def encoded(self, number: int) -> Encoded:
        """The image of this row. Raises UserError naming what cannot be read."""
        shard, group, row_of_group, row = self._locate(number)
        content = self._contents(group)[row_of_group]
        name = f"{shard.name} row {row}"
        if content is None:
            raise UserError(f"{name}: column {shard.column} holds no image")
        return Encoded(name, content)

    def _locate(self, number: int) -> tuple[Shard, int, int, int]:
        """The file and the group of a row, and its number in the group and in the file."""
        group = bisect_right(self.starts, number) - 1
        shard, _, first = self._groups[group]
        row = number - self.starts[group]
        return shard, group, row, first + row

    def _contents(self, group: int) -> dict[int, bytes | None]:
        """The wanted images of a group. The first thread that asks reads the group; the others wait."""
        with self._lock:
            self._clock += 1
            cached, _ = self._kept.pop(group, (None, 0))
            future = Future[dict[int, bytes | None]]() if cached is None else cached
            self._kept[group] = future, self._clock
            # A shuffled pass is done with a group that it has not read from for a window; one more window is reserve
            # for reading ahead.
            while next(iter(self._kept.values()))[1] < self._clock - 2 * WINDOW:
                del self._kept[next(iter(self._kept))]
        if cached is None:
            try:
                future.set_result(self._read(group))
            except BaseException as error:
                future.set_exception(error)
                with self._lock:
                    self._kept.pop(group, None)
        return future.result()

    def _read(self, group: int) -> dict[int, bytes | None]:
        shard, number, _ = self._groups[group]
        column = _read_group(shard, number)
        rows = np.arange(len(column))
        if self._wanted is not None:
            first, last = np.searchsorted(self._wanted, (self.starts[group], self.starts[group] + len(column)))
            rows = self._wanted[first:last] - self.starts[group]
        return dict(zip(rows.tolist(), column.take(rows).to_pylist(), strict=True))


@contextmanager
def opened(name: str, store: Store) -> Iterator[BinaryIO]:
    """Opens a file for the length of the block; any error becomes a UserError that names the file."""
    try:
        with store.open(name) as stream:
            yield stream
    except UserError:
        raise
    # Arrow and remote file systems raise exceptions of their own.
    except Exception as error:
        raise UserError(f"{name} cannot be read as parquet: {' '.join(str(error).split())}") from error


def _read_group(shard: Shard, group: int) -> Any:
    """The column of encoded images of a row group."""
    arrow, parquet = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    with opened(shard.name, shard.store) as stream:
        # Arrow's own threads gain little for one column, and would compete with those that decode.
        file = parquet.ParquetFile(stream, metadata=shard.metadata)
        contents = file.read_row_group(group, columns=[shard.column], use_threads=False)[shard.column]
    contents = contents.combine_chunks()
    return contents.field("bytes") if arrow.types.is_struct(contents.type) else contents
