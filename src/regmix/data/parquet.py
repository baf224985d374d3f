"""Parquet files of encoded images, as image data sets have on the Hugging Face hub."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, zip_longest
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from regmix.data.complete import check_complete
from regmix.data.decode import Encoded, import_optional
from regmix.data.images import ImageSet, Split, check_labels
from regmix.data.stored import WINDOW, Identity, Stored
from regmix.types import Tag, UserError

RowLabels = Int64[np.ndarray, "rows"]


class Store(Protocol):
    """Where the files are."""

    def open(self, name: str) -> BinaryIO:
        """A file by its name, for reading at any place of it."""
        ...

    def identity(self, name: str) -> Identity:
        """What tells whether a file is still the same."""
        ...


@dataclass(frozen=True)
class Disk:
    """Files below a folder of this machine."""

    root: Path

    def open(self, name: str) -> BinaryIO:
        """The file of this path, which includes the folder's."""
        return Path(name).open("rb")

    def identity(self, name: str) -> Identity:
        """Its name below the folder, size and time."""
        return Identity.of(Path(name), self.root)


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The settings of a data set in parquet files, wherever they are."""

    name: str  # set by each source; here because a dataclass keeps the order of its bases, and configs begin with it
    image_column: str = "image"
    """Column with the encoded images."""
    label_column: str = "label"
    """Column with the integer labels. Class names come from the files' Hugging Face metadata."""
    train_files: str = "**/train-*.parquet"
    """Glob pattern of the training files."""
    test_files: str = "**/test-*.parquet"
    """Glob pattern of the test files."""
    size: int | None = None
    """Height and width in pixels. Images of another size are resized so that the shorter side fits, and cropped at the
    centre. None: all images have the same size already."""
    stream: bool = False
    """Read and decode images when they are needed instead of keeping all in memory. Files of the hub are fetched in
    parts."""

    def pattern(self, split: Split) -> str:
        """The pattern of a split's files."""
        return self.train_files if split == "train" else self.test_files

    def read_files(self, files: Sequence[str], split: Split, place: str, store: Store) -> ImageSet:
        """The images in these files of a split, which were found at a place; see `read_parquet`."""
        if not files:
            raise UserError(f"{place} has no files {self.pattern(split)}; name them with --data.{split}-files")
        columns = [self.image_column], [self.label_column]
        return read_parquet(files, *columns, size=self.size, stream=self.stream, store=store)


@dataclass(frozen=True, kw_only=True)
class Parquet(Shards):
    """Parquet files in a folder, with encoded images and integer labels."""

    name: Tag[Literal["parquet"]] = "parquet"
    root: str = "data/parquet"
    """Folder with the files."""

    def read(self, split: Split) -> ImageSet:
        """Images uint8 [N, 3, H, W], RGB, in the order of the sorted files. Raises UserError naming what is missing
        or damaged."""
        root = Path(self.root)
        files, others = (
            sorted(str(path) for path in root.glob(self.pattern(one)))
            for one in (split, "test" if split == "train" else "train")
        )
        images = self.read_files(files, split, self.root, Disk(root))
        for name in others[:1]:
            _, names, _ = _open_shard(name, Disk(root), [self.image_column], [self.label_column])
            if names:
                _agree(name, names, images.classes)
        return images


def read_parquet(
    files: Sequence[str],
    image_columns: Sequence[str],
    label_columns: Sequence[str],
    classes: tuple[str, ...] | None = None,
    *,
    size: int | None = None,
    stream: bool = False,
    store: Store,
) -> ImageSet:
    """All rows of parquet files with encoded images (binary, or a struct with `bytes`) and integer labels.

    The first of the named columns that is there is read; `classes` None takes the names that the file's
    Hugging Face metadata gives to the label column. Images become RGB, of one size, as `decode` says; with `stream`
    whenever they are looked at. Raises UserError naming the file, and the row where there is one.
    """
    check_complete(files)
    official = classes is not None
    shards: list[Shard] = []
    labels: list[RowLabels] = []
    for name in files:
        shard, names, values = _open_shard(name, store, image_columns, label_columns)
        classes = classes or names
        if classes is None:
            raise UserError(
                f"{name} does not name the classes of its labels; write it with a ClassLabel (Hugging Face datasets)"
            )
        if names:
            _agree(name, names, classes, official=official)
        check_labels(name, values, classes)
        shards.append(shard)
        labels.append(values)
    assert classes is not None
    images = ImageSet(Stored.of(RowGroups(shards), size), torch.from_numpy(np.concatenate(labels)), classes)
    return images if stream else images.resident()


@dataclass(frozen=True)
class Shard:
    """A parquet file, what is known of it, and its column of images."""

    name: str
    store: Store
    metadata: Any
    column: str

    @cached_property
    def rows(self) -> list[int]:
        """The number of rows of each row group."""
        return [self.metadata.row_group(number).num_rows for number in range(self.metadata.num_row_groups)]


class RowGroups:
    """The images of parquet files, which can only be read a group of rows at a time. Groups are kept for a while.

    Only the rows that are `wanted` (sorted; None: all) are kept of a group.
    """

    def __init__(self, shards: Sequence[Shard], wanted: Int64[np.ndarray, "wanted"] | None = None) -> None:
        self._shards, self._wanted = shards, wanted
        self._groups = [
            (shard, group, first)
            for shard in shards
            for group, first in enumerate([*accumulate(shard.rows, initial=0)][:-1])
        ]
        *self.starts, self._len = accumulate((rows for shard in shards for rows in shard.rows), initial=0)
        self._kept: dict[int, tuple[Future[dict[int, bytes | None]], int]] = {}
        self._clock, self._lock = 0, Lock()

    def __len__(self) -> int:
        return self._len

    def only(self, numbers: Int64[Tensor, "chosen"]) -> "RowGroups":
        """The same rows, of which only these will be asked for."""
        return RowGroups(self._shards, np.unique(numbers.numpy()))

    def identity(self, numbers: Int64[Tensor, "chosen"]) -> list[Identity]:
        """Of each of these rows, counted through all files, its file's identity and its number in the file."""
        files = {shard.name: shard.store.identity(shard.name) for shard in self._shards}
        found = []
        for number in numbers.tolist():
            shard, _, _, row = self._place(number)
            file = files[shard.name]
            found.append(file._replace(name=f"{file.name} row {row}"))
        return found

    def encoded(self, number: int) -> Encoded:
        """The image of this row, counted through all files. Raises UserError naming what cannot be read."""
        shard, group, row_of_group, row = self._place(number)
        content = self._contents(group)[row_of_group]
        name = f"{shard.name} row {row}"
        if content is None:
            raise UserError(f"{name}: column {shard.column} holds no image")
        return Encoded(name, content)

    def _place(self, number: int) -> tuple[Shard, int, int, int]:
        """File and group of a row that is counted through all files, and its number in the group and in the file."""
        group = bisect_right(self.starts, number) - 1
        shard, _, first = self._groups[group]
        row = number - self.starts[group]
        return shard, group, row, first + row

    def _contents(self, group: int) -> dict[int, bytes | None]:
        """The wanted images of a group; whichever thread asks first reads it, and the others wait."""
        with self._lock:
            self._clock += 1
            found, _ = self._kept.pop(group, (None, 0))
            future = Future[dict[int, bytes | None]]() if found is None else found
            self._kept[group] = future, self._clock
            # A shuffled pass is done with a group that it has not looked at for a window, and reads another ahead.
            while next(iter(self._kept.values()))[1] < self._clock - 2 * WINDOW:
                del self._kept[next(iter(self._kept))]
        if found is None:
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


def _agree(name: str, names: Sequence[str], classes: Sequence[str], *, official: bool = False) -> None:
    """Raises UserError where a file names a label otherwise than the classes.

    A name that is none of the `official` ones may be another spelling; one that is means another order.
    """
    for label, (one, other) in enumerate(zip_longest(names, classes)):
        if one != other and (one in classes or not official):
            raise UserError(
                f"{name}: label {label} is {one!r}, but {other!r} in the other files of the data or in its official "
                "order; mend the names of the classes (ClassLabel)"
            )


@contextmanager
def _opened(name: str, store: Store) -> Iterator[BinaryIO]:
    """The open file; what goes wrong with it becomes a UserError that names it."""
    try:
        with store.open(name) as stream:
            yield stream
    except UserError:
        raise
    # Arrow has errors of its own, and so has whatever brings a file from elsewhere.
    except Exception as error:
        raise UserError(f"{name} cannot be read as parquet: {' '.join(str(error).split())}") from error


def _open_shard(
    name: str, store: Store, image_columns: Sequence[str], label_columns: Sequence[str]
) -> tuple[Shard, tuple[str, ...] | None, RowLabels]:
    """A file of which nothing but the labels has been read, the names of its classes if it tells, and its labels."""
    arrow, parquet = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    with _opened(name, store) as stream:
        file = parquet.ParquetFile(stream)
        schema = file.schema_arrow
        image = _choose(name, image_columns, schema.names)
        label = _choose(name, label_columns, schema.names)
        labels = file.read(columns=[label])[label].combine_chunks()
    if not arrow.types.is_integer(labels.type):
        advice = "number the classes and name them as a ClassLabel (Hugging Face datasets)"
        raise UserError(f"{name}: column {label} must hold one integer per row, not {labels.type}; {advice}")
    if labels.null_count:
        row = labels.is_null().index(True).as_py()
        raise UserError(f"{name} row {row}: column {label} must hold one integer per row, but here is none")
    kind = schema.field(image).type
    if arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
        raise UserError(f"{name}: column {image} must hold encoded images, not {kind}")
    return (
        Shard(name, store, file.metadata, image),
        _class_names(schema.metadata, label),
        labels.to_numpy(zero_copy_only=False).astype(np.int64),
    )


def _read_group(shard: Shard, group: int) -> Any:
    """The column of encoded images of a row group."""
    arrow, parquet = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    with _opened(shard.name, shard.store) as stream:
        # Its own threads gain little for one column, and would take the place of those that decode.
        file = parquet.ParquetFile(stream, metadata=shard.metadata)
        contents = file.read_row_group(group, columns=[shard.column], use_threads=False)[shard.column]
    contents = contents.combine_chunks()
    return contents.field("bytes") if arrow.types.is_struct(contents.type) else contents


def _choose(name: str, wanted: Sequence[str], there: Sequence[str]) -> str:
    for column in wanted:
        if column in there:
            return column
    raise UserError(f"{name} has no column {' or '.join(wanted)}; it has {', '.join(there)}")


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None
