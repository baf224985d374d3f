"""Models that somebody else wrote."""

import importlib
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from regmix.models.base import Normalise
from regmix.types import Tag, UserError


@dataclass(frozen=True)
class Function:
    """What a function of yours returns: any nn.Module that maps images [B, C, H, W] in [0, 1] to logits.

    It normalises its input itself. The function is called with classes=N if it has such a parameter, without arguments
    if not. The module is looked for in the current folder, too; its code is run.
    """

    name: Tag[Literal["function"]] = field(default="function", kw_only=True)
    source: str = ""
    """module:function, such as my_models:resnet50."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        module_name, _, name = self.source.partition(":")
        if not (module_name and name):
            raise UserError(f"--model.source {self.source!r}: write module:function, such as my_models:resnet50")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UserError(f"{self.source}: cannot import {module_name} from {Path.cwd()}: {error}") from None
        function = getattr(module, name, None)
        if not callable(function):
            raise UserError(f"{self.source}: {module_name} has no function {name}")
        try:
            takes_classes = "classes" in inspect.signature(function).parameters
        except ValueError:  # some of those written in C have none
            takes_classes = False
        try:
            model = function(classes=classes) if takes_classes else function()
        except Exception as error:
            raise UserError(f"{self.source} failed: {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise UserError(f"{self.source}: returned {type(model).__name__}; it must return a torch.nn.Module")
        return model
