"""The text of an experiment in config.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from regmix.config.experiment import Experiment
from regmix.config.retired import without_retired
from regmix.data import DataFunction
from regmix.models import Function
from regmix.runtime.files import parse_json, printable
from regmix.types import NO_TRUST, Trust, UserError


def to_json(experiment: Experiment) -> str:
    """The text of config.json.

    Raises:
        UserError: a name that is not UTF-8, such as that of a folder on a disk of another system.
    """
    values = asdict(experiment)
    if (text := json.dumps(values, ensure_ascii=False)) != printable(text):
        raise UserError("a file or folder that the settings name is not UTF-8; rename it")
    return json.dumps(values, indent=2) + "\n"


def from_json(
    text: str, source: str | Path = "config.json", trust: Trust = NO_TRUST, *, reads_data: bool = True
) -> Experiment:
    """Reads config.json strictly: an unknown key, a wrong type or a wrong value is a UserError that names it.

    So is a model or data whose code the user has not allowed to run: the text may come from anybody. Who will not read
    the data says so, and needs no permission for its code.
    """
    tree = parse_json(text, source)
    try:
        experiment = TypeAdapter(Experiment).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: {where + ': ' if where else ''}{first['msg']}") from None
    if unknown := _keys(without_retired(tree, source)) - _keys(asdict(experiment)):
        raise UserError(f"{source}: unknown key {min(unknown)}")
    if isinstance(experiment.model, Function):
        trust.check(experiment.model.source, Path(source).parent)
    if reads_data and isinstance(experiment.data, DataFunction):
        trust.check(experiment.data.source, Path(source).parent, "data")
    return experiment


def _keys(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for name, value in tree.items():
        keys |= _keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name}
    return keys
