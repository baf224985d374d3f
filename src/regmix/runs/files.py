"""Records as JSON files, and tensors as safetensors."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import Tensor

from regmix.runtime.files import read_json, write_text
from regmix.types import UserError

T = TypeVar("T")


def write_record(path: Path, record: Any) -> None:
    """Writes a record (a dataclass) as JSON, atomically."""
    text = json.dumps(asdict(record), indent=2) + "\n"
    write_text(path, text)


def read_record(path: Path, kind: type[T]) -> T:
    """Reads a record.

    Raises:
        UserError: a file that cannot be read or is damaged; the message names the field.
    """
    return typed(path, kind, read_json(path))


def typed(path: Path, kind: type[T], value: Any) -> T:
    """The value as this type. Raises UserError, which names the file, if it is of another."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}") from None


def packed(state: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The tensors and the metadata as safetensors.

    Tensors that share memory are copied, because the format does not allow sharing.
    """
    tensors: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if memory in taken else own
        taken.add(memory)
    return save(tensors, metadata or None)
