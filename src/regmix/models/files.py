"""Reads files of weights without running code from them, and chooses the set of weights that is meant."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from regmix.types import UserError, few

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")
"""Suffixes of files of weights. The last ones are those of Lightning, of Hugging Face, and of .pth.tar."""
PROGRAMS = {"constants.pkl": "torch.jit.load", "archive_format": "torch.export.load"}
"""Files in the archive of a program, and what loads it."""
RAW = {"state_dict", "model_state_dict", "model", "net", "network", "weights"}
"""Entries in which training scripts save the weights that the optimiser updates."""
AVERAGED = re.compile(r"(?:^|[_.])(?:ema|swa|avg|averaged?|polyak|shadow)(?:$|[_.])")
"""Matches the names of entries with averaged weights: model_ema, state_dict_ema, swa_model, ema.shadow."""


class WeightSet(NamedTuple):
    """One set of weights, its entry in the file ("top" for the file itself), and the other entries with weights."""

    state: dict[str, Tensor]
    entry: str
    others: list[str]


def read(path: Path) -> Any:
    """Reads the content of a file of weights.

    Raises:
        UserError: there is no such file, it is damaged, or it needs pickled code.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a file of weights ({', '.join(SUFFIXES)})")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from None
        except KeyError as error:  # a dtype that this version of safetensors cannot convert to torch
            raise UserError(f"{path} holds a dtype that cannot be read: {error}; save the weights as float32") from None
    if (loader := _program(path)) is not None:
        raise UserError(f"{path} is a program, not a file of weights; save the state dict of what {loader} returns")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to whoever wrote the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} needs pickled code ({code[1]}), which could do anything and is not run; if you trust the "
                "file, load it yourself and save the state dict alone: torch.save(model.state_dict(), path)"
            ) from None
        raise UserError(f"{path} is truncated or not a PyTorch checkpoint; copy it again") from None
    except Exception as error:  # torch.load raises nearly any exception on a broken file
        kind = type(error).__name__
        raise UserError(f"{path} is truncated or not a PyTorch checkpoint ({kind}); copy it again") from None


def _program(path: Path) -> str | None:
    """The function that loads a file of a network with its code; None for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):  # no archive, or a damaged one
        return None
    return next((loader for name, loader in PROGRAMS.items() if name in names), None)


def choose(
    content: Any, title: str, which: str | None, own: Iterable[str], fits: Callable[[dict[str, Tensor]], bool]
) -> WeightSet:
    """Chooses the set of weights that is meant.

    Args:
        content: the content of the file.
        title: the name of the file, for messages.
        which: "raw", "averaged" or the name of an entry; None if the file has only one set of weights.
        own: the names of the model's tensors.
        fits: whether a set of tensors fits the model.

    Raises:
        UserError: no weights, several sets with none chosen, or a choice that the file does not have.
    """
    if not isinstance(content, Mapping):
        raise UserError(
            f"{title} must hold a state dict, not a {type(content).__name__}; save model.state_dict() alone"
        )
    names = set(own)
    sets = _sets(content, names)
    # Candidates are entries with a usual name, entries that fit the model, and tensors at the top of the file if they
    # are at least half as many as the model's.
    candidates = {
        path: state
        for path, state in sets.items()
        if (_is_container(path) if path else 2 * len(state) > len(names)) or fits(state)
    }
    if not candidates and "" in sets:
        candidates = {"": sets[""]}
    if not candidates:
        entries = few("its entries are", map(str, content)) or "it is empty"
        raise UserError(f"{title} holds no weights; {entries}")
    averaged = [path for path in candidates if AVERAGED.search(path)]
    raw = [path for path in candidates if path not in averaged]
    if which in ("raw", "averaged"):
        meant = averaged if which == "averaged" else raw
    elif which is not None:
        meant = [path for path in sets if _named(path) == which]
    else:
        meant = list(candidates)
    if len(meant) == 1:
        return WeightSet(sets[meant[0]], _named(meant[0]), [_named(path) for path in candidates if path != meant[0]])
    if not meant:
        raise UserError(f"{title} has no {which} weights; {few('it has', map(_named, candidates))}")
    if which is None and len(averaged) == len(raw) == 1:
        raise UserError(
            f"{title} holds two sets of weights; choose one: "
            f"--weights raw ({_named(raw[0])}) or --weights averaged ({_named(averaged[0])})"
        )
    raise UserError(
        f"{title} holds {len(meant)} sets of weights; choose one: --weights NAME, {few('of', map(_named, meant))}"
    )


def _sets(content: Mapping[Any, Any], own: set[str]) -> dict[str, dict[str, Tensor]]:
    """The tensors of every nested mapping by its path, such as model.ema; the content itself has the path "".

    Tensors whose names begin with a prefix such as "ema_model." are a separate set.
    """
    sets: dict[str, dict[str, Tensor]] = {}
    seen: set[int] = set()
    todo: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    while todo:
        path, mapping = todo.pop(0)
        if id(mapping) in seen:  # a pickled mapping can contain itself
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
