"""Parquet files of encoded images, as image data sets have on the Hugging Face hub."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from regmix.data.decode import Encoded, decode, import_optional
from regmix.data.images import ImageSet, check_labels
from regmix.types import UserError

RowLabels = Int64[np.ndarray, "rows"]


def read_parquet(
    files: Sequence[Path],
    image_columns: Sequence[str],
    label_columns: Sequence[str],
    classes: tuple[str, ...] | None = None,
) -> ImageSet:
    """All rows of parquet files with encoded images (binary, or a struct with `bytes`) and integer labels.

    The first of the named columns that is there is read; `classes` None takes the names that the file's
    Hugging Face metadata gives to the label column. Images become RGB as `decode` says. Raises UserError
    naming the file, and the row where there is one.
    """
    _check_complete(files)
    encoded: list[Encoded] = []
    labels: list[RowLabels] = []
    for path in files:
        names, images, values = _read_file(path, image_columns, label_columns)
        classes = classes or names
        if classes is None:
            raise UserError(f"{path} does not name the classes of its labels (no ClassLabel in its metadata)")
        check_labels(path, values, classes)
        encoded += images
        labels.append(values)
    assert classes is not None
    return ImageSet(decode(encoded, size=None), torch.from_numpy(np.concatenate(labels)), classes)


def _check_complete(files: Sequence[Path]) -> None:
    """Data sets in several files are named train-00000-of-00004.parquet and so on."""
    names = {path.name for path in files}
    for name in names:
        if numbered := re.fullmatch(r"(.*-)\d{5}(-of-(\d{5})\.parquet)", name):
            before, after, count = numbered.groups()
            for i in range(int(count)):
                if (wanted := f"{before}{i:05}{after}") not in names:
                    raise UserError(f"{files[0].parent / wanted} is missing; {name} is one of {int(count)} files")


def _read_file(
    path: Path, image_columns: Sequence[str], label_columns: Sequence[str]
) -> tuple[tuple[str, ...] | None, list[Encoded], RowLabels]:
    arrow, parquet = import_optional("pyarrow"), import_optional("pyarrow.parquet")
    try:
        schema = parquet.read_schema(path)
        image = _choose(path, image_columns, schema.names)
        label = _choose(path, label_columns, schema.names)
        table = parquet.read_table(path, columns=[image, label])
    except (OSError, arrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error

    labels = table[label].combine_chunks()
    if not arrow.types.is_integer(labels.type) or labels.null_count:
        raise UserError(f"{path}: column {label} must hold one integer per row, not {labels.type}")
    contents = table[image].combine_chunks()
    if arrow.types.is_struct(contents.type) and contents.type.get_field_index("bytes") >= 0:
        contents = contents.field("bytes")
    if not (arrow.types.is_binary(contents.type) or arrow.types.is_large_binary(contents.type)):
        raise UserError(f"{path}: column {image} must hold encoded images, not {contents.type}")
    if contents.null_count:
        row = contents.is_null().index(True).as_py()
        raise UserError(f"{path} row {row}: column {image} holds no image")

    encoded = [Encoded(f"{path} row {row}", content.as_py()) for row, content in enumerate(contents)]
    return (
        _class_names(schema.metadata, label),
        encoded,
        labels.to_numpy(zero_copy_only=False).astype(np.int64),
    )


def _choose(path: Path, wanted: Sequence[str], there: Sequence[str]) -> str:
    for name in wanted:
        if name in there:
            return name
    raise UserError(f"{path} has no column {' or '.join(wanted)}; it has {', '.join(there)}")


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None
