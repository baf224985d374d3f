"""Imports the user's own code, from the current folder or from installed packages, and optional libraries."""

import importlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regmix.types import UserError


def optional(module: str, need: str, install: str) -> Any:
    """Imports a module of an optional library. Raises UserError with the need and what to install if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{need}: pip install {install} ({error})") from error


def imported(source: str, part: str = "model") -> Callable[..., Any]:
    """Imports the function that a text such as my_models:resnet50 names. This runs the code of the module.

    `part` is the part of an experiment that it is for.

    Raises:
        UserError: the text is malformed, the module or function does not exist, the code fails, or a module of the
            current folder has the name of another module.
    """
    module_name, _, name = source.partition(":")
    if not (module_name and name):
        raise UserError(f"--{part}.source {source!r}: write module:function, such as my_{part}s:make")
    here = Path.cwd()
    if module_name.endswith(".py") or {"/", os.sep} & {*module_name}:
        raise UserError(f"{source}: write module:function, {_as_module(module_name.removesuffix('.py'), here, name)}")
    if str(here) not in sys.path:
        # Last, so that no file here replaces a module that a library imports later.
        sys.path.append(str(here))
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        cause = " ".join(str(error).split()) or "no reason given"
        raise UserError(
            f"{source}: cannot import {module_name} from {here}: {type(error).__name__}: {cause}"
        ) from error
    imported_file = getattr(module, "__file__", None)
    for local_file in (
        here.joinpath(*module_name.split(".")).with_suffix(".py"),
        here.joinpath(*module_name.split("."), "__init__.py"),
    ):
        if local_file.is_file() and not (imported_file and local_file.samefile(imported_file)):
            raise UserError(
                f"{source}: another module has the name {module_name} ({imported_file or 'built in'}); "
                f"rename {local_file}"
            )
    if not hasattr(module, name):
        functions = [other for other, value in vars(module).items() if callable(value)]
        close = [f"; did you mean {module_name}:{other}?" for other in get_close_matches(name, functions, 1)]
        raise UserError(f"{source}: {module_name} has no function {name}{''.join(close)}")
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"{source} is no function but a value ({type(function).__name__}); name a function")
    return function  # type: ignore[no-any-return]


def _as_module(file: str, here: Path, name: str) -> str:
    """How to name the module in a file of code, whose name is given without its ending."""
    path = Path(os.path.normpath(here / file))
    if path.is_relative_to(here):
        return f"here {'.'.join(path.relative_to(here).parts)}:{name}"
    return f"here {path.name}:{name}, in the folder {path.parent}, or put that folder on PYTHONPATH"
