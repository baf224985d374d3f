"""The files of code that a model is made of."""

import ast
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from torch import nn

from regmix.models.function import Function
from regmix.runtime.files import digest
from regmix.types import few

PACKAGE = Path(__file__).parents[1].resolve()


def code_files(model: nn.Module, config: object) -> list[Path]:
    """The source files of a model: those of its modules' classes, of the function that built it, and of the user's
    modules that one of them imports, wherever in the file it does.
    """
    waiting = {type(module).__module__ for module in model.modules()}
    if isinstance(config, Function) and ":" in config.source:  # a black box may be a file
        waiting.add(config.source.partition(":")[0])
    seen, files = set[str](), set[Path]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if (file := _file(name)) is not None:
            files.add(file)
            if is_users(file):
                waiting |= {*_imports(name, file)}
    return sorted(files)


def users_code(model: nn.Module, config: object) -> dict[str, str]:
    """Digests of the user's files that define a model, by path."""
    return {str(path): digest(path) for path in code_files(model, config) if is_users(path)}


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Says that a model's code is not what it was when its training began; None if it is, or was not recorded.

    Both are what `users_code` returned. Only the content of the files counts: they may have moved.
    """
    if not before or sorted(before.values()) == sorted(now.values()):
        return None
    other = [Path(path).name for path, sum_ in now.items() if sum_ not in before.values()]
    gone = [Path(path).name for path, sum_ in before.items() if sum_ not in now.values()]
    return (
        f"{few('the code of the model has changed since its training began:', sorted({*other, *gone}))}; if it now "
        "computes something else with these weights, this is not the trained model"
    )


def is_users(path: Path) -> bool:
    """Whether a file of code is the user's: neither this package's nor an installed library's."""
    if {"site-packages", "dist-packages"} & {*path.parts}:
        return False
    folders = PACKAGE, Path(sysconfig.get_path("stdlib")).resolve()
    return not any(path.is_relative_to(folder) for folder in folders)


def _file(name: str) -> Path | None:
    """The source file of a module, which need not have been imported yet; None if it has none."""
    module, found = sys.modules.get(name), None
    with suppress(TypeError, OSError, ValueError, ImportError, AttributeError):  # written in C, or without a file
        if module is not None:
            found = inspect.getsourcefile(module)
        elif (spec := _spec(name)) is not None and spec.has_location:
            found = spec.origin
    path = Path(found).resolve() if found else None
    return path if path is not None and path.is_file() and path.suffix == ".py" else None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module would be imported from. importlib.util.find_spec would import the packages that it is in."""
    package = name.rpartition(".")[0]
    if not package:
        return importlib.util.find_spec(name)
    parent = _spec(package)
    inside = parent.submodule_search_locations if parent is not None else None
    return PathFinder.find_spec(name, [*inside]) if inside is not None else None


def _imports(name: str, file: Path) -> Iterator[str]:
    """The names of all modules that a file may import; some may be names inside of modules instead."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # changed since it was imported
        return
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each for alias in node.names for each in _with_packages(alias.name))
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # beyond the top of its package
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from _with_packages(base)
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_packages(name: str) -> Iterator[str]:
    """A module and the packages that it is in, which are imported before it."""
    while name:
        yield name
        name = name.rpartition(".")[0]
