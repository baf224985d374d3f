"""The type checker that tests/conftest.py runs on every function of regmix."""

from collections.abc import Callable
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from beartype import beartype
from jaxtyping import AbstractArray

F = TypeVar("F", bound=Callable[..., Any])


def _names_a_shape(hint: object) -> bool:
    if get_origin(hint) in (Union, UnionType, tuple):
        return any(_names_a_shape(part) for part in get_args(hint))
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def check_shapes(function: F) -> F:
    """beartype for the annotations that name a shape.

    mypy sees to the others; beartype would refuse some of them (a Protocol that is not runtime_checkable).
    """
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _names_a_shape(hint)}
    checked: F = beartype(function)
    return checked
