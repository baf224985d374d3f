"""The flags that set a dataclass, and the values of an experiment, as the help shows them."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from regmix.cli.table import Flag, Settings
from regmix.config import UNIONS, Experiment

FORMS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: ""}
FIRST = ("root", "repository", "source")
"""Fields that stand before the others: where the images or the model are."""


def settings_of(experiment: Experiment, about: str = "") -> Settings:
    """The kinds of an experiment, and its values where they differ from the defaults of its kinds."""
    kinds = {part: getattr(experiment, part).name for part in UNIONS}
    usual = replace(Experiment(), **{part: UNIONS[part][kind]() for part, kind in kinds.items()})
    return Settings(about, kinds, dict(_differing(experiment, usual)))


def _differing(settings: Any, usual: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        value, default = getattr(settings, field.name), getattr(usual, field.name)
        name = prefix + field.name.replace("_", "-")
        if is_dataclass(value):
            yield from _differing(value, default, f"{name}.")
        elif value != default:
            yield name, _text(value, hints[field.name])


def flags_of(kind: type[Any], prefix: str = "") -> Iterator[Flag]:
    """The flags that set the fields of a dataclass. Parts of an experiment and positional words are left out."""
    hints, helps = get_type_hints(kind, include_extras=True), docstrings(kind)
    for field in sorted(fields(kind), key=lambda field: field.name not in FIRST):
        hint = hints[field.name]
        marks = hint.__metadata__ if get_origin(hint) is Annotated else ()
        plain = hint.__origin__ if marks else hint
        if tyro.conf.Suppress in marks or tyro.conf.Positional in marks or (field.name in UNIONS and not prefix):
            continue
        renamed = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), None)
        if is_dataclass(plain):
            if plain is not Experiment:  # its flags are listed once for all commands
                yield from flags_of(plain, "" if renamed == "" else f"{prefix}{field.name}.")  # type: ignore[arg-type]
            continue
        name = renamed or prefix + field.name.replace("_", "-")
        aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
        short = aliases[0].removeprefix("-") if aliases else ""
        yield Flag(name, _form(hint), helps[field.name], _default(field, hint), short)


def _form(hint: Any) -> str:
    """What a person writes after the flag."""
    if get_origin(hint) is Annotated:
        written = [mark.metavar for mark in hint.__metadata__ if isinstance(mark, PrimitiveConstructorSpec)]
        return written[0] if written else _form(hint.__origin__)
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return "|".join("True|False" if one is bool else _form(one) for one in get_args(hint) if one is not NoneType)
    if get_origin(hint) is tuple:
        return f"{_form(get_args(hint)[0])} ..."
    return FORMS[hint]


def _default(field: Field[Any], hint: Any) -> str | None:
    if field.default is not MISSING:
        return _text(field.default, hint)
    return _text(field.default_factory(), hint) if field.default_factory is not MISSING else None


def _text(value: Any, hint: Any) -> str:
    """A value as a person writes it on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    for one in (hint, *get_args(hint)):
        for mark in getattr(one, "__metadata__", ()):
            if isinstance(mark, PrimitiveConstructorSpec) and value is not None:
                return mark.str_from_instance(value)[0]
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def docstrings(kind: type[Any]) -> dict[str, str]:
    """The docstring of every field of a dataclass, its bases included, as one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, after in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(after.value.value).split())
    return found
