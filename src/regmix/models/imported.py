"""The code of models that somebody else wrote, imported from the current folder or from what is installed."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regmix.types import UserError


def imported(source: str) -> Callable[..., Any]:
    """The function that a text such as my_models:resnet50 names. The module is imported, which runs its code.

    Raises:
        UserError: no such text, module or function; code that fails; a module of the current folder whose name another
            module has already.
    """
    module_name, _, name = source.partition(":")
    if not (module_name and name):
        raise UserError(f"--model.source {source!r}: write module:function, such as my_models:resnet50")
    here = Path.cwd()
    if str(here) not in sys.path:
        # Behind all others: no file here may take the place of a module that a library imports later.
        sys.path.append(str(here))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        why = " ".join(str(error).split()) or "no reason given"
        raise UserError(f"{source}: cannot import {module_name} from {here}: {type(error).__name__}: {why}") from error
    found = getattr(module, "__file__", None)
    for place in (
        here.joinpath(*module_name.split(".")).with_suffix(".py"),
        here.joinpath(*module_name.split("."), "__init__.py"),
    ):
        if place.is_file() and not (found and place.samefile(found)):
            raise UserError(
                f"{source}: another module has the name {module_name} ({found or 'built in'}); rename {place}"
            )
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{source}: {module_name} has no function {name}")
    return function  # type: ignore[no-any-return]
