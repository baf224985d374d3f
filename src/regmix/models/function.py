"""Models that somebody else wrote."""

import inspect
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from regmix.models.base import Normalise
from regmix.models.imported import imported
from regmix.types import Tag, UserError


@dataclass(frozen=True)
class Function:
    """What a function of yours returns: any nn.Module that maps images [B, C, H, W] in [0, 1] to logits.

    It normalises its input itself. The function is called with classes=N if it has such a parameter, without arguments
    if not. The module is looked for in the current folder, too; its code is run, and so the user must have named it.
    """

    name: Tag[Literal["function"]] = field(default="function", kw_only=True)
    source: str = ""
    """module:function, such as my_models:resnet50."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        function = imported(self.source)
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
