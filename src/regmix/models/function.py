"""Models that somebody else wrote."""

import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from regmix.models.base import Normalise
from regmix.models.imported import imported
from regmix.types import Tag, UserError


@dataclass(frozen=True)
class Function:
    """Your own model: a function that returns an nn.Module from images [B, C, H, W] in [0, 1] to logits.

    The model normalises its input itself. The function is called with classes=N or num_classes=N, whichever it takes,
    or without arguments. If the model returns a dict or an object, its `logits` are used. Submodules that the function
    returns in evaluation mode, such as a frozen BatchNorm, stay in it while the rest is trained. The current folder is
    searched for the module too. Its code is run, so the user must have named it.
    """

    name: Tag[Literal["function"]] = field(default="function", kw_only=True)
    source: str = ""
    """The function as module:function, such as my_models:resnet50. Its code is run."""

    def network(self, classes: int, normalise: Normalise) -> nn.Module:
        function = imported(self.source)
        try:
            model = _called(function, classes)
        except Exception as error:
            raise UserError(f"{self.source} failed: {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise UserError(f"{self.source}: returned {type(model).__name__}; it must return a torch.nn.Module")
        try:
            model.cpu()  # where every model is built; whoever uses it moves it
        except NotImplementedError as error:  # of device meta
            raise UserError(f"{self.source}: the weights hold no values ({error})") from None
        # A hook, because a module around the model would put a prefix before the names of its weights. Those of
        # torch.jit.script take none.
        if not isinstance(model, torch.jit.ScriptModule):
            model.register_forward_hook(_only_logits)
        return model


def _called(function: Callable[..., Any], classes: int) -> Any:
    """What the function returns for so many classes, whatever it calls their number."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # some of those written in C have none
        return function()
    named = {name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    given = {name: classes for name in ("classes", "num_classes") if name in named}
    if not given and any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        state = torch.get_rng_state()
        try:
            return function(num_classes=classes)
        except Exception:  # whatever it is that it does not take
            torch.set_rng_state(state)
    return function(**given)


def _only_logits(model: nn.Module, images: object, output: Any) -> Any:
    """The logits of an output that names them; any other as it is."""
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output


def materialise(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Gives lazy modules their weights, which they make when they first see an image [C, H, W]."""
    if not any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        return
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    except Exception as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the model's lazy modules cannot be made: it fails on images {list(shape)}: {why}") from None
    for module, mode in modes:
        module.training = mode
    if left := [name for name, one in model.named_parameters() if is_lazy(one)]:
        raise UserError(f"the model never calls the lazy module of {left[0]}; remove it, or give its sizes")


def code_files(model: nn.Module, config: object) -> list[Path]:
    """The files that the classes of a model's modules, and the function that made it, are written in."""
    written: set[Any] = {type(module) for module in model.modules()}
    if isinstance(config, Function):
        written.add(sys.modules[config.source.partition(":")[0]])
    files = set()
    for one in written:
        with suppress(TypeError, OSError):  # written in C, or in no file
            files.add(inspect.getsourcefile(one))
    return [Path(name) for name in sorted(filter(None, files)) if Path(name).is_file()]
