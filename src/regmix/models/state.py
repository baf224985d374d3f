"""Loads weights into a model, from our own files or from checkpoints of public code bases."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regmix.models.base import Normalise
from regmix.models.files import choose, read
from regmix.models.namings import UNUSED, WRAPPERS, canonical, guess, is_normalisation, unwrapped
from regmix.types import UserError, few

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class LoadReport:
    """Which weights were loaded, and which tensors of the model or the source were not used."""

    source: str
    """The file, or "the state dict"."""
    entry: str
    """The entry of the file that was loaded; empty if the file has only one set of weights."""
    tensors: int
    """How many tensors the model has."""
    kept: tuple[str, ...]
    """Tensors of the model that the source lacks and may lack: the normalisation, BatchNorm's step counters."""
    left_over: tuple[str, ...]
    """Tensors of the source that do not belong to the network, and other sets of weights in the source."""
    converted: tuple[str, ...]
    """Dtypes of the source that differ from the model's, such as float16."""
    anew: tuple[str, ...] = ()
    """Tensors of a last layer for another number of classes, which were not loaded."""

    def summary(self) -> str:
        """One line, such as "plain.pt: 54 of 54 tensors loaded; left over: n_averaged"."""
        origin = f" from {self.entry}" if self.entry else ""
        parts = [
            f"{self.source}: {self.tensors - len(self.kept) - len(self.anew)} of {self.tensors} tensors loaded{origin}",
            few("of another number of classes, so they start anew:", self.anew),
            few("kept from the model:", self.kept),
            few("left over:", self.left_over),
            few("converted from", self.converted),
        ]
        return "; ".join(filter(None, parts))


def load_weights(
    model: nn.Module, source: str | Path | Mapping[str, Any], weights: str | None = None, classes: int | None = None
) -> LoadReport:
    """Loads weights strictly into the model: every tensor must have its place and its shape.

    Prefixes of wrappers such as `module.` are removed from the names. For the networks of this package, other common
    names are understood too (fc or linear, downsample or shortcut, mu or normalize.mean). If the source has no input
    normalisation or no BatchNorm step counters, those of the model stay.

    Args:
        source: a state dict, a .safetensors file, or a .pt or .pth file of torch. Pickled code is not run.
        weights: "raw", "averaged" or the name of an entry, if the source holds several sets of weights.
        classes: the number of classes, if the last layer may be of another number of them in the source; the model then
            keeps its own last layer. None: it must fit.

    Raises:
        UserError: the file cannot be read; entries are missing, unexpected or of another shape; values are not finite
            floating-point numbers, or variances are negative; or there are several sets of weights and none was chosen.
            The model is then unchanged.
    """
    if isinstance(source, Mapping):
        title, content = "the state dict", source
    else:
        title, content = str(source), read(Path(source))
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    known = isinstance(getattr(model, "normalise", None), Normalise)
    optional = _optional(model, own)

    def match(state: Mapping[str, Tensor]) -> _Match:
        return _best(state, own, optional, known)

    chosen = choose(content, title, weights, own, lambda state: not match(state).problems(own))
    matched = match(chosen.state)
    anew = _new_head(matched.state, own, classes)
    matched = matched._replace(state=matched.state | anew)
    conflicts = few("different values for a tensor that the model shares:", _conflicts(matched.state, own))
    if problems := [*matched.problems(own), *([conflicts] if conflicts else [])]:
        reasons = "; ".join([*problems, *guess(chosen.state, own)])
        raise UserError(f"{title} does not fit the model: {reasons}")
    values = {name: _value(title, name, value, own[name]) for name, value in matched.state.items()}
    _require_sound(title, values, known)
    # torch's strict check would refuse files that hold shared tensors once; all others are checked above.
    model.load_state_dict(values, strict=False)
    types = {value.dtype for name, value in matched.state.items() if value.dtype != own[name].dtype}
    return LoadReport(
        title,
        chosen.entry if chosen.others else "",
        len(own),
        tuple(sorted(own.keys() - values.keys() - _tied(own, values), key=list(own).index)),
        (*matched.left_over, *chosen.others),
        tuple(sorted(str(kind).removeprefix("torch.") for kind in types)),
        tuple(anew),
    )


def _new_head(state: Mapping[str, Tensor], own: Mapping[str, Tensor], classes: int | None) -> dict[str, Tensor]:
    """The model's own tensors of the one layer that is for another number of classes in the source."""
    other = [name for name, value in state.items() if value.shape != own[name].shape]
    fits = (own[name].shape[:1] == (classes,) and own[name].shape[1:] == state[name].shape[1:] for name in other)
    one_layer = len({name.rpartition(".")[0] for name in other}) == 1
    return {name: own[name] for name in other} if one_layer and all(fits) else {}


class _Match(NamedTuple):
    """One way to map the source's names to the model's: the tensors it gives, and the names that do not fit."""

    state: dict[str, Tensor]
    left_over: list[str]
    missing: list[str]
    unexpected: list[str]
    twice: list[str]

    def problems(self, own: Mapping[str, Tensor]) -> list[str]:
        """Descriptions of all names and shapes that do not fit the model."""
        misshapen = (
            f"{name} {list(value.shape)} instead of {list(own[name].shape)}"
            for name, value in self.state.items()
            if value.shape != own[name].shape
        )
        twice = few("twice, under different prefixes:", self.twice)
        problems = (few("missing", self.missing), few("unexpected", self.unexpected), few("other shape", misshapen))
        return [*filter(None, (*problems, twice))]

    def faults(self) -> int:
        """How many names do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.twice)


def _best(state: Mapping[str, Tensor], own: dict[str, Tensor], optional: set[str], known: bool) -> _Match:
    """The mapping of names that fits, or the one with the fewest faults."""
    best: _Match | None = None
    for names in _mappings(state, own, known):
        candidate = _match(state, names, own, optional)
        if not candidate.problems(own):
            return candidate
        if best is None or candidate.faults() <= best.faults():
            best = candidate
    assert best is not None
    return best


def _mappings(state: Mapping[str, Tensor], own: Mapping[str, Tensor], known: bool) -> Iterator[dict[str, str]]:
    """Mappings from the source's names to the model's: exact names, then other prefixes, then other common names."""
    for ours in _prefixes(own):
        for theirs in _prefixes(state):
            yield {name: ours + name[len(theirs) :] if name.startswith(theirs) else name for name in state}
    if known:
        names = {canonical(name): name for name in own}
        assert len(names) == len(own)
        yield {name: names.get(canonical(name), name) for name in state}


def _prefixes(names: Mapping[str, Tensor]) -> list[str]:
    """The prefixes of wrappers among the names, the shortest first, beginning with the empty one."""
    prefixes = {""}
    for name in names:
        end = 0
        while step := WRAPPERS.match(name, end):
            end = step.end()
            prefixes.add(name[:end])
    return sorted(prefixes, key=len)


def _match(state: Mapping[str, Tensor], names: Mapping[str, str], own: dict[str, Tensor], optional: set[str]) -> _Match:
    result: dict[str, Tensor] = {}
    left_over: list[str] = []
    unexpected: list[str] = []
    for name, value in state.items():
        target = names[name]
        if target in own:
            # Public normalisations also have the shapes [C] and [C, 1, 1].
            reshape = is_normalisation(target) and value.shape != own[target].shape
            fits = reshape and value.layout == torch.strided and value.numel() == own[target].numel()
            result[target] = value.reshape(own[target].shape) if fits else value
        else:
            (left_over if UNUSED.match(unwrapped(name)) else unexpected).append(name)
    spare = set() if optional & result.keys() else set(optional)
    spare |= {name for name in own if name.endswith("num_batches_tracked")}
    spare |= _tied(own, result)
    missing = [name for name in own if name not in result and name not in spare]
    counts = Counter(target for target in names.values() if target in own)
    return _Match(result, left_over, missing, unexpected, [name for name, count in counts.items() if count > 1])


def _optional(model: nn.Module, own: Mapping[str, Tensor]) -> set[str]:
    """The entries of the input normalisation, which a source may lack if it lacks both. They are never parameters."""
    learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names = {name for name in own if is_normalisation(name) and name not in learned}
    both = {canonical(name) for name in names} == {"normalise.mean", "normalise.std"}
    return names if both else set()


def _tied(own: Mapping[str, Tensor], filled: Mapping[str, Tensor]) -> set[str]:
    """Names of tensors that share memory with tensors that were filled; a file may hold shared tensors once."""
    addresses = {(own[name].data_ptr(), own[name].shape) for name in filled}
    return {name for name, value in own.items() if value.data_ptr() and (value.data_ptr(), value.shape) in addresses}


def _conflicts(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Pairs of names that share one tensor in the model but have different values in the state."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    pairs = []
    for name in (name for name in own if name in state and own[name].numel()):
        tensor = own[name]
        other = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
        if other != name and not torch.equal(state[other], state[name]):
            pairs.append(f"{other} and {name}")
    return pairs


def _value(title: str, name: str, value: Tensor, own: Tensor) -> Tensor:
    """The value in the model's dtype. Raises UserError if the conversion would change its meaning."""
    kind = str(value.dtype).removeprefix("torch.")
    if value.is_meta:
        kind = "without values (on the device `meta`)"
    elif value.layout != torch.strided or value.is_nested:
        kind = "sparse"
    elif value.is_quantized:
        kind = "quantised"
    elif value.dtype == own.dtype:
        return value.detach()
    elif own.is_floating_point() and value.dtype in FLOATS:
        return value.detach().to(own.dtype)
    elif not own.is_floating_point() and not own.is_complex() and not value.is_complex():
        whole = value.detach().to(own.dtype)
        # BatchNorm's step counters do not matter in evaluation, and averaged weights may hold averages of them.
        if name.endswith("num_batches_tracked") and value.isfinite().all():
            return whole
        if torch.equal(whole.to(value.dtype), value):
            return whole
    expected = str(own.dtype).removeprefix("torch.")
    raise UserError(
        f"{title}: {name} is {kind} where the model has {expected}; save the weights as plain float32 tensors"
    )


def _require_sound(title: str, values: Mapping[str, Tensor], known: bool) -> None:
    """Raises UserError for values that a trained network cannot have."""
    broken = [name for name, value in values.items() if not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{title} is not finite in {len(broken)} of {len(values)} tensors ({few('such as', broken)}): "
            "the training diverged or the file is damaged; use an earlier checkpoint"
        )
    negative = [name for name, value in values.items() if name.endswith("running_var") and (value < 0).any()]
    if negative:
        raise UserError(f"{title} is damaged: {few('negative variances in', negative)}; use another checkpoint")
    if known and "normalise.std" in values and not (values["normalise.std"] > 0).all():
        raise UserError(f"{title} is damaged: the standard deviations in normalise.std must be positive")
