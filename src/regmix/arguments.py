"""Types of arguments: a value of another type ends in one line that says what to give."""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from regmix.errors import UserError, brief

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises UserError for an argument of another type than the one that it names."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        types = _types(function)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                check_argument(name, value, types[name])
        return function(*args, **kwargs)

    return call


def check_fields(value: object) -> None:
    """Raises UserError for a field of a dataclass whose value has another type than the one that the class names."""
    kind: Any = type(value)
    for name, expected in _types(kind).items():
        check_argument(name, getattr(value, name), expected)


def check_argument(name: str, value: object, expected: Any) -> None:
    """Raises UserError unless the value has the expected type. True and False are no numbers."""
    try:
        check_type(value, expected, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        fits = not isinstance(value, bool) or bool in (expected, *get_args(expected))
    except TypeCheckError:
        fits = False
    if not fits:
        raise UserError(f"{name} is {brief(value)}; give {_words(expected)}")


@cache
def _types(described: Any) -> dict[str, Any]:
    return get_type_hints(described)


def _words(expected: Any) -> str:
    """What may be given."""
    kind, parts = get_origin(expected), get_args(expected)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind in (Union, UnionType):
        return " or ".join(map(_words, parts))
    if parts:
        return f"a list of {_words(parts[0])}"
    return "None" if expected is NoneType else str(expected.__name__)
