"""What stands for libraries that a training step does not need."""

import importlib.abc
import importlib.machinery
import types
from collections.abc import Iterator
from typing import Any

UNNEEDED = (
    "torchvision", "apex", "autoattack", "cv2", "thop", "tensorboardX", "tensorflow", "pandas", "matplotlib", "torchhk",
)  # fmt: skip


class _Kind(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Kind(name, (Anything,), {})


class Anything(metaclass=_Kind):
    """Stands for whatever a training step does not need."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "Anything":
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Unneeded(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for every library in UNNEEDED; its attributes are classes of Anything."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in UNNEEDED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Kind(name, (Anything,), {})

        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass
