"""Models that a function of the user returns."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from regmix.models.base import Normalise
from regmix.runtime.borrowed import same_modes
from regmix.runtime.imported import imported
from regmix.types import Tag, UserError, first_line


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
        if isinstance(function, nn.Module):
            raise UserError(
                f"{self.source} is a model, not a function that returns one; write such a function beside it, "
                f"def make(): return {self.source.partition(':')[2]}, and name that"
            )
        try:
            model = _called(function, classes)
        except Exception as error:
            raise UserError(f"{self.source} failed: {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise UserError(f"{self.source}: returned {type(model).__name__}; it must return a torch.nn.Module")
        try:
            with same_modes(model):
                model.eval()
        except NotImplementedError:
            raise UserError(
                f"{self.source}: returned a module of torch.export, which has no evaluation mode; return the nn.Module "
                "that was exported"
            ) from None
        try:
            model.cpu()  # every model is built on the CPU; its user moves it
        except NotImplementedError as error:  # tensors on the device meta
            raise UserError(f"{self.source}: the weights hold no values ({error})") from None
        # A hook, because a wrapper module would add a prefix to the names of the weights. Models of torch.jit.script
        # take no hooks.
        if not isinstance(model, torch.jit.ScriptModule):
            model.register_forward_hook(only_logits)
        return model


def _called(function: Callable[..., Any], classes: int) -> Any:
    """Calls the function with the number of classes, under the argument name that it takes."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # some functions written in C have no signature
        return function()
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    keywords = {name for name, parameter in parameters.items() if parameter.kind in by_name}
    arguments = {name: classes for name in ("classes", "num_classes") if name in keywords}
    if not arguments and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        state = torch.get_rng_state()
        try:
            return function(num_classes=classes)
        except Exception:  # it does not take num_classes
            torch.set_rng_state(state)
    return function(**arguments)


def only_logits(model: nn.Module, images: object, output: Any) -> Any:
    """The entry or attribute `logits` of an output that has one; any other output unchanged."""
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output


def materialise(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Creates the weights of lazy modules, by a forward pass on one image of this shape [C, H, W].

    Raises:
        UserError: the model fails on the image, or never calls a lazy module.
    """
    if not any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        return
    try:
        with same_modes(model), torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    except Exception as error:
        cause = first_line(error)
        raise UserError(
            f"the weights of the model's lazy modules cannot be created: it fails on images {list(shape)}: {cause}"
        ) from None
    if uncalled := [name for name, parameter in model.named_parameters() if is_lazy(parameter)]:
        raise UserError(f"the model never calls the lazy module of {uncalled[0]}; remove it, or give its sizes")
