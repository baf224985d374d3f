"""An experiment with some of its settings changed, as Python names them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from regmix.arguments import check_argument
from regmix.config import UNIONS, Experiment, from_json, to_json
from regmix.shorthand import named
from regmix.types import Trust, UserError, known


def with_changes(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """The experiment with other settings, checked as strictly as config.json.

    A part, such as the method, takes the name of a kind ("trades"; a model also "timm:NAME" or "module:function"), a
    dict of its settings ({"name": "trades", "beta": 3.0}; without a name the kind stays), or a value such as Trades().

    Raises:
        UserError: a setting that does not exist, has another type, or does not fit the others.
    """
    if not changes:
        return experiment
    changed = _replaced(experiment, {name: _part(experiment, name, value) for name, value in changes.items()})
    try:
        text = to_json(changed)
    except TypeError as error:
        raise UserError(f"a setting has a value that config.json cannot hold: {error}") from None
    return from_json(text, "the experiment", Trust(everything=True))  # the caller has named the code


def _part(experiment: Experiment, name: str, value: Any) -> Any:
    """The new value of a setting."""
    if name not in UNIONS:
        return value
    if isinstance(value, str):
        kind, settings = named(name, value)
        value = {"name": kind, **settings}
    if not isinstance(value, Mapping):
        return value
    settings = dict(value)
    present = getattr(experiment, name)
    kind = known(settings.pop("name", present.name), UNIONS[name], name)
    return _replaced(present if kind == present.name else UNIONS[name][kind](), settings, f"{name}.")


def _replaced(value: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass with other values; a dict changes some fields of a dataclass in it."""
    names, types = [field.name for field in fields(value) if field.name != "name"], get_type_hints(type(value))
    settled = {}
    for name, given in changes.items():
        known(name, names, f"setting of the {prefix[:-1]}" if prefix else "setting")
        present = getattr(value, name)
        if is_dataclass(present) and isinstance(given, Mapping):
            given = _replaced(present, given, f"{prefix}{name}.")
        settled[name] = str(given) if isinstance(given, Path) else given
    try:
        return replace(value, **settled)
    except TypeError as error:
        for name, given in settled.items():
            check_argument(prefix + name, given, types[name])
        raise UserError(
            f"{', '.join(prefix + name for name in changes)}: a value has the wrong type ({error})"
        ) from None
