"""What a file of weights holds: reading it without running code, and which set of weights in it is meant."""

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from regmix.types import UserError

SUFFIXES = (".safetensors", ".pt", ".pth")
"""How the names of files of weights end."""
RAW = {"state_dict", "model_state_dict", "model", "net", "network", "weights"}
"""Entries under which training scripts keep the weights that the optimiser changes."""
AVERAGED = re.compile(r"(?:^|[_.])(?:ema|swa|avg|averaged?|polyak|shadow)(?:$|[_.])")
"""What the names of entries with averaged weights have in them: model_ema, state_dict_ema, swa_model, ema.shadow."""


class Chosen(NamedTuple):
    """One set of weights, the entry of the file that it is from ("top": none), and the others that hold weights."""

    state: dict[str, Tensor]
    entry: str
    others: list[str]


def read(path: Path) -> Any:
    """The content of a file, or UserError."""
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is truncated or no safetensors file ({error})") from None
        except KeyError as error:  # a type that this version of safetensors gives no tensor for
            raise UserError(f"{path} holds numbers of a type that cannot be read: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to whoever wrote the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} needs pickled code ({code[1]}), which could do anything and is not run; "
                "save its state dict alone where you trust it: torch.save(model.state_dict(), path)"
            ) from None
        raise UserError(f"{path} is truncated or no PyTorch checkpoint") from None
    except Exception as error:  # a broken file makes torch.load raise nearly anything
        raise UserError(f"{path} is truncated or no PyTorch checkpoint ({type(error).__name__})") from None


def choose(
    content: Any, title: str, which: str | None, own: Iterable[str], fits: Callable[[dict[str, Tensor]], bool]
) -> Chosen:
    """The set of weights that is meant.

    Args:
        content: what the file holds.
        title: its name, for messages.
        which: "raw", "averaged" or the name of an entry; None where the file leaves no choice.
        own: the names of the model's tensors, which are no containers.
        fits: whether a set of tensors is one of the model's.

    Raises:
        UserError: no weights, several sets of them with nothing chosen, or a choice that the file does not offer.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{title} holds no state dict but a {type(content).__name__}")
    names = set(own)
    sets = _sets(content, names)
    # An entry of any name that fits the model could be what is meant; so could what lies beside the entries, if it is
    # more than a few values.
    found = {
        path: state
        for path, state in sets.items()
        if (_is_container(path) if path else 2 * len(state) > len(names)) or fits(state)
    }
    if not found and "" in sets:
        found = {"": sets[""]}
    if not found:
        entries = few("its entries are", map(str, content)) or "it is empty"
        raise UserError(f"{title} holds no weights; {entries}")
    averaged = [path for path in found if AVERAGED.search(path)]
    raw = [path for path in found if path not in averaged]
    if which in ("raw", "averaged"):
        meant = averaged if which == "averaged" else raw
    elif which is not None:
        meant = [path for path in sets if _named(path) == which]
    else:
        meant = list(found)
    if len(meant) == 1:
        return Chosen(sets[meant[0]], _named(meant[0]), [_named(path) for path in found if path != meant[0]])
    if not meant:
        raise UserError(f"{title} has no {which} weights; {few('it has', map(_named, found))}")
    if which is None and len(averaged) == len(raw) == 1:
        raise UserError(
            f"{title} holds two sets of weights; choose one: "
            f"--weights raw ({_named(raw[0])}) or --weights averaged ({_named(averaged[0])})"
        )
    raise UserError(
        f"{title} holds {len(meant)} sets of weights; choose one: --weights NAME, {few('of', map(_named, meant))}"
    )


def _sets(content: Mapping[Any, Any], own: set[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of every mapping in the content, by its path such as model.ema; the content itself is "".

    Tensors beside others whose names begin with "ema_model." or the like are a set of their own.
    """
    sets: dict[str, dict[str, Tensor]] = {}
    seen: set[int] = set()
    todo: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    while todo:
        path, mapping = todo.pop(0)
        if id(mapping) in seen:  # a file can hold itself
            continue
        seen.add(id(mapping))
        for name, value in mapping.items():
            if not isinstance(name, str):
                continue
            if isinstance(value, Mapping):
                todo.append((_join(path, name), value))
            elif isinstance(value, Tensor):
                first, _, rest = name.partition(".")
                if rest and name not in own and AVERAGED.search(first):
                    sets.setdefault(_join(path, first), {})[rest] = value
                else:
                    sets.setdefault(path, {})[name] = value
    return sets


def _is_container(path: str) -> bool:
    return all(part in RAW or AVERAGED.search(part) for part in path.split("."))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _named(path: str) -> str:
    return path or "top"


def few(title: str, names: Iterable[str]) -> str:
    """Title, the first three names and how many more there are; empty without names."""
    first, rest = (every := list(names))[:3], every[3:]
    shown = ", ".join(name if name.isprintable() else repr(name) for name in first)
    return f"{title} {shown}{f' and {len(rest)} more' if rest else ''}" if first else ""
