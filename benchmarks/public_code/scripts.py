"""Runs scripts of public code, or parts of them, with names and words changed in memory."""

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


def run_script(
    path: Path,
    changes: dict[str, Any],
    replace: dict[str, str] | None = None,
    given: dict[str, Any] | None = None,
    *,
    main: str = "",
    package: str = "",
) -> dict[str, Any]:
    """Executes a script with names of its modules changed and, in memory, words of its text; returns its names.

    `given` are names that the changed words use.

    `changes` are given as module.name, for modules that it imports; a name alone is set in the script itself before its
    function `main` is called. Without `main` it runs as the main program.
    """
    sys.path.insert(0, str(path.parent))
    for name, value in changes.items():
        module, dot, attribute = name.rpartition(".")
        if dot:
            setattr(importlib.import_module(module), attribute, value)
    text = path.read_text(encoding="utf-8")
    for old, new in (replace or {}).items():
        assert old in text, f"{path} has changed: it has no {old!r}"
        text = text.replace(old, new)
    name = "public_script" if main or package else "__main__"
    scope: dict[str, Any] = (given or {}) | {
        "__name__": f"{package}.{name}" if package else name,
        "__file__": str(path),
    }
    if package:
        scope["__package__"] = package
    exec(compile(text, str(path), "exec"), scope)
    if main:
        scope |= {name: value for name, value in changes.items() if "." not in name}
        scope[main]()
    return scope


def run_part(path: Path, begin: str, end: str, scope: dict[str, Any]) -> None:
    """Executes the lines of a script from the one with `begin` to `end`."""
    text = path.read_text(encoding="utf-8")
    first = text.index(begin)
    scope.update(torch=torch, nn=nn, F=nn.functional, np=np, sys=sys, time=time)
    exec(compile(text[first : text.index(end, first + len(begin))], str(path), "exec"), scope)
