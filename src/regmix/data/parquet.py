"""Data sets in parquet files of encoded images, the format of image data sets on the Hugging Face hub."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64

from regmix.data.complete import check_complete
from regmix.data.decode import import_optional
from regmix.data.images import ImageSet, Split, check_labels
from regmix.data.row_groups import Disk, RowGroups, Shard, Store, opened
from regmix.data.size import Channels, Size
from regmix.data.stored import Stored
from regmix.types import Tag, UserError

RowLabels = Int64[np.ndarray, "rows"]


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The settings of a data set in parquet files, wherever they are."""

    # Every source sets it. It is declared here so that it comes first in the field order, and so in config files.
    name: str
    image_column: str = "image"
    """Column with the encoded images."""
    label_column: str = "label"
    """Column with the integer labels. Class names come from the files' Hugging Face metadata."""
    train_files: str = "**/train-*.parquet"
    """Glob pattern of the training files."""
    test_files: str = "**/test-*.parquet"
    """Glob pattern of the test files."""
    size: Size | None = None
    """Height and width in pixels, or one number for both. Images of another size are resized so that they just cover
    it, and cropped at the centre. None: all images have the same size already."""
    channels: Channels = "rgb"
    """Channels of the images. rgb: three. grey: one, to which colours are converted."""
    stream: bool = False
    """Read and decode images when they are needed instead of keeping all in memory. Files of the hub are fetched in
    parts."""

    def pattern(self, split: Split) -> str:
        """The pattern of the files of a split."""
        return self.train_files if split == "train" else self.test_files

    def read_files(self, files: Sequence[str], split: Split, source: str, store: Store) -> ImageSet:
        """Reads the images in these files of a split; see `read_parquet`. `source` names their folder or repository."""
        if not files:
            raise UserError(f"{source} has no files {self.pattern(split)}; name them with --data.{split}-files")
        columns = [self.image_column], [self.label_column]
        return read_parquet(files, *columns, size=self.size, channels=self.channels, stream=self.stream, store=store)


@dataclass(frozen=True, kw_only=True)
class Parquet(Shards):
    """Parquet files in a folder, with encoded images and integer labels."""

    name: Tag[Literal["parquet"]] = "parquet"
    root: str = "data/parquet"
    """Folder with the files."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, H, W], RGB, or [N, 1, H, W], grey, in the order of the sorted files.

        Raises:
            UserError: a file is missing or damaged, or the two splits name their classes differently.
        """
        root = Path(self.root)
        files = self._files(split)
        images = self.read_files(files, split, self.root, Disk(root))
        other_files = self._files("test" if split == "train" else "train")
        for name in other_files[:1]:
            _, names, _ = _open_shard(name, Disk(root), [self.image_column], [self.label_column])
            if names:
                _check_names(name, names, images.classes)
        return images

    @property
    def has_tests(self) -> bool:
        """Whether a run on these images has test images."""
        return bool(self._files("test"))

    def _files(self, split: Split) -> list[str]:
        return sorted(str(path) for path in Path(self.root).glob(self.pattern(split)))


def read_parquet(
    files: Sequence[str],
    image_columns: Sequence[str],
    label_columns: Sequence[str],
    classes: tuple[str, ...] | None = None,
    *,
    size: Size | None = None,
    channels: Channels = "rgb",
    stream: bool = False,
    store: Store,
) -> ImageSet:
    """Reads all rows of parquet files with encoded images (binary, or a struct with `bytes`) and integer labels.

    Args:
        files: names of the files in the store.
        image_columns: possible names of the image column; the first that exists is read.
        label_columns: possible names of the label column; the first that exists is read.
        classes: names of the classes; None takes them from the files' Hugging Face metadata.
        size, channels: see `decode`, which converts the images.
        stream: decode on access instead of now.
        store: opens the files.

    Raises:
        UserError: names the file, and the row where there is one.
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
            _check_names(name, names, classes, official=official)
        check_labels(name, values, classes)
        shards.append(shard)
        labels.append(values)
    assert classes is not None
    images = ImageSet(Stored.of(RowGroups(shards), size, channels), torch.from_numpy(np.concatenate(labels)), classes)
    return images if stream else images.resident()


def _check_names(name: str, names: Sequence[str], classes: Sequence[str], *, official: bool = False) -> None:
    """Raises UserError if a file names a label differently from `classes`.

    If the classes are `official`, an unknown name is accepted as another spelling; a known one means another order.
    """
    for label, (own, expected) in enumerate(zip_longest(names, classes)):
        if own != expected and (own in classes or not official):
            raise UserError(
                f"{name}: label {label} is {own!r}, but {expected!r} in the other files of the data or in its official "
                "order; correct the names of the classes (ClassLabel)"
            )


def _open_shard(
    name: str, store: Store, image_columns: Sequence[str], label_columns: Sequence[str]
) -> tuple[Shard, tuple[str, ...] | None, RowLabels]:
    """A file whose labels alone have been read, the names of its classes if it has them, and its labels."""
    arrow, parquet = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    with opened(name, store) as stream:
        file = parquet.ParquetFile(stream)
        schema = file.schema_arrow
        image = _choose(name, image_columns, schema.names)
        label = _choose(name, label_columns, schema.names)
        labels = file.read(columns=[label])[label].combine_chunks()
    if not arrow.types.is_integer(labels.type):
        advice = "number the classes and name them with a ClassLabel (Hugging Face datasets)"
        raise UserError(f"{name}: column {label} must hold one integer per row, not {labels.type}; {advice}")
    if labels.null_count:
        row = labels.is_null().index(True).as_py()
        raise UserError(f"{name} row {row}: column {label} must hold one integer per row, but this one is null")
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


def _choose(name: str, wanted: Sequence[str], columns: Sequence[str]) -> str:
    for column in wanted:
        if column in columns:
            return column
    raise UserError(f"{name} has no column {' or '.join(wanted)}; it has {', '.join(columns)}")


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None
