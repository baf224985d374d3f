"""Loading weights into a model: our own files, and the checkpoints of public code bases with their many namings."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regmix.models.base import Normalise
from regmix.models.files import choose, few, read
from regmix.types import UserError

WRAPPERS = re.compile(r"(?:module|model|_orig_mod|_forward_module|basic_net|net|network|1)\.")
"""Prefixes that wrappers put before a parameter's name; nn.Sequential(normalise, network) makes it "1."."""
NORMALISATION = re.compile(r"(?:(?:\w*normali[sz]\w*|norm|0)\.)?(?:new_)?(?:(mean|mu)|(std|sigma))")
"""A normalisation's own entries: its centre, or its spread."""
UNUSED = re.compile(r"sub_block1\.|attacker\.|n_averaged$")
"""What public checkpoints hold beside the network: TRADES' unused copy of a stage, the second copy of the
model in those of the `robustness` package, the counter of torch's AveragedModel."""
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class Loaded:
    """What a load has found: the tensors of the model that it filled, and what did not come from or go to them."""

    source: str
    """The file, or "the state dict"."""
    entry: str
    """The entry of the file that the weights are from; empty if it holds nothing else."""
    tensors: int
    """How many tensors the model has."""
    kept: tuple[str, ...]
    """Tensors of the model that the source does not have: the normalisation, counters of BatchNorm's steps."""
    left_over: tuple[str, ...]
    """Tensors of the source that are known not to belong to the network, and other sets of weights in it."""
    converted: tuple[str, ...]
    """Types of numbers of the source that are not the model's, such as float16."""

    def told(self) -> str:
        """One line, such as "plain.pt: 54 of 54 tensors loaded; left over: n_averaged"."""
        place = f" from {self.entry}" if self.entry else ""
        parts = [
            f"{self.source}: {self.tensors - len(self.kept)} of {self.tensors} tensors loaded{place}",
            few("kept from the model:", self.kept),
            few("left over:", self.left_over),
            few("converted from", self.converted),
        ]
        return "; ".join(filter(None, parts))


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any], weights: str | None = None) -> Loaded:
    """Loads .safetensors, torch's .pt / .pth without pickled code, or a state dict into the model, strictly.

    The names of the source are the model's, perhaps with the prefixes of wrappers such as `module.`. For the
    networks of this package other names of the same thing (fc or linear, downsample or shortcut, mu or
    normalize.mean) are understood, too. Where the source has no normalisation or no BatchNorm step counters,
    those of the model stay.

    Args:
        weights: "raw", "averaged" or the name of an entry, where the source holds several sets of weights.

    Raises:
        UserError: with the model untouched, for a file that cannot be read; missing, unexpected or misshapen
            entries; values that are no finite floating-point numbers, or negative variances; and several sets of
            weights of which none was chosen.
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
    found = match(chosen.state)
    parted = few("different values for what is one tensor in the model:", _parted(found.state, own))
    if problems := [*found.problems(own), *([parted] if parted else [])]:
        reasons = "; ".join([*problems, *_guess(chosen.state, own)])
        raise UserError(f"{title} does not fit the model: {reasons}")
    values = {name: _value(title, name, value, own[name]) for name, value in found.state.items()}
    _require_sound(title, values, known)
    model.load_state_dict(values, strict=False)  # ours is stricter, but for tied tensors, which a file has once
    types = {value.dtype for name, value in found.state.items() if value.dtype != own[name].dtype}
    return Loaded(
        title,
        chosen.entry if chosen.others else "",
        len(own),
        tuple(sorted(own.keys() - values.keys() - _tied(own, values), key=list(own).index)),
        (*found.left_over, *chosen.others),
        tuple(sorted(str(kind).removeprefix("torch.") for kind in types)),
    )


class _Match(NamedTuple):
    """One reading of the source's names: what it gives the model, and what is wrong with it."""

    state: dict[str, Tensor]
    left_over: list[str]
    missing: list[str]
    unexpected: list[str]
    twice: list[str]

    def problems(self, own: Mapping[str, Tensor]) -> list[str]:
        misshapen = (
            f"{name} {list(value.shape)} instead of {list(own[name].shape)}"
            for name, value in self.state.items()
            if value.shape != own[name].shape
        )
        twice = few("twice, under different prefixes:", self.twice)
        problems = (few("missing", self.missing), few("unexpected", self.unexpected), few("other shape", misshapen))
        return [*filter(None, (*problems, twice))]

    def faults(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.twice)


def _best(state: Mapping[str, Tensor], own: dict[str, Tensor], optional: set[str], known: bool) -> _Match:
    """The reading with the fewest faults: exact names first, then without wrappers, then other names of the same."""
    best: _Match | None = None
    for names in _readings(state, own, known):
        found = _match(state, names, own, optional)
        if not found.problems(own):
            return found
        if best is None or found.faults() <= best.faults():
            best = found
    assert best is not None
    return best


def _readings(state: Mapping[str, Tensor], own: Mapping[str, Tensor], known: bool) -> Iterator[dict[str, str]]:
    """Ways to give the source's names as the model's: the same prefix off all of them, the same one before them."""
    for ours in _prefixes(own):
        for theirs in _prefixes(state):
            yield {name: ours + name[len(theirs) :] if name.startswith(theirs) else name for name in state}
    if known:
        names = {_canonical(name): name for name in own}
        assert len(names) == len(own)
        yield {name: names.get(_canonical(name), name) for name in state}


def _prefixes(names: Mapping[str, Tensor]) -> list[str]:
    """What wrappers have put before names, the shortest first, which is nothing."""
    found = {""}
    for name in names:
        end = 0
        while step := WRAPPERS.match(name, end):
            end = step.end()
            found.add(name[:end])
    return sorted(found, key=len)


def _match(state: Mapping[str, Tensor], names: Mapping[str, str], own: dict[str, Tensor], optional: set[str]) -> _Match:
    result: dict[str, Tensor] = {}
    left_over: list[str] = []
    unexpected: list[str] = []
    for name, value in state.items():
        target = names[name]
        if target in own:
            # also [C] and [C, 1, 1] are in use
            other = _is_normalisation(target) and value.shape != own[target].shape
            fits = other and value.layout == torch.strided and value.numel() == own[target].numel()
            result[target] = value.reshape(own[target].shape) if fits else value
        else:
            (left_over if UNUSED.match(_unwrapped(name)) else unexpected).append(name)
    spare = set() if optional & result.keys() else set(optional)
    spare |= {name for name in own if name.endswith("num_batches_tracked")}
    spare |= _tied(own, result)
    missing = [name for name in own if name not in result and name not in spare]
    counts = Counter(target for target in names.values() if target in own)
    return _Match(result, left_over, missing, unexpected, [name for name, count in counts.items() if count > 1])


def _optional(model: nn.Module, own: Mapping[str, Tensor]) -> set[str]:
    """The normalisation's entries, which a source may lack together; those that are learned are no normalisation."""
    learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names = {name for name in own if _is_normalisation(name) and name not in learned}
    both = {_canonical(name) for name in names} == {"normalise.mean", "normalise.std"}
    return names if both else set()


def _tied(own: Mapping[str, Tensor], filled: Mapping[str, Tensor]) -> set[str]:
    """The names of the model's tensors that are others of its tensors, which have been filled; a file has them once."""
    places = {(own[name].data_ptr(), own[name].shape) for name in filled}
    return {name for name, value in own.items() if value.data_ptr() and (value.data_ptr(), value.shape) in places}


def _parted(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Pairs of names that the model has for one tensor and the state for two that differ; the last would win."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    found = []
    for name in (name for name in own if name in state and own[name].numel()):
        tensor = own[name]
        other = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
        if other != name and not torch.equal(state[other], state[name]):
            found.append(f"{other} and {name}")
    return found


def _value(title: str, name: str, value: Tensor, own: Tensor) -> Tensor:
    """The value as the model keeps it, or UserError for one that means something else."""
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
        # The counters of BatchNorm's steps decide nothing in evaluation; averages of weights have averaged them, too.
        if name.endswith("num_batches_tracked") and value.isfinite().all():
            return whole
        if torch.equal(whole.to(value.dtype), value):
            return whole
    expected = str(own.dtype).removeprefix("torch.")
    raise UserError(
        f"{title}: {name} is {kind} where the model has {expected}; save the weights as plain float32 tensors"
    )


def _require_sound(title: str, values: Mapping[str, Tensor], known: bool) -> None:
    """Raises UserError for numbers that no network can have been trained to."""
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


def _unwrapped(name: str) -> str:
    end = 0
    while step := WRAPPERS.match(name, end):
        end = step.end()
    return name[end:]


def _is_normalisation(name: str) -> bool:
    return NORMALISATION.fullmatch(_unwrapped(name)) is not None


def _canonical(name: str) -> str:
    """One name for what the code bases name differently."""
    name = _unwrapped(name)
    if match := NORMALISATION.fullmatch(name):
        return "normalise.mean" if match[1] else "normalise.std"
    name = re.sub(r"^(?:fc|classifier)\.(weight|bias)$", r"linear.\1", name)
    return name.replace(".downsample.", ".shortcut.")


def _guess(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """What could explain the difference, as far as shapes and names tell."""
    theirs, ours = _describe(state), _describe(own)
    differing = [trait for trait in ours if trait in theirs and ours[trait] != theirs[trait]]
    if "architecture" in differing:
        differing = ["architecture"]
    return [f"the file looks like {trait} {theirs[trait]}, the model has {ours[trait]}" for trait in differing]


def _describe(state: Mapping[str, Tensor]) -> dict[str, str | int]:
    """Architecture, depth, width, stem, channels and classes, as far as a state dict shows them."""
    shapes = {_canonical(name): list(value.shape) for name, value in state.items()}
    traits: dict[str, str | int] = {}
    blocks = [name for name in shapes if re.fullmatch(r"(layer\d|block\d\.layer)\.\d+\.conv1\.weight", name)]
    if "block1.layer.0.conv1.weight" in shapes:
        traits["architecture"] = "WideResNet"
        traits["depth"] = 2 * len(blocks) + 4
        traits["widen"] = shapes["block1.layer.0.conv1.weight"][0] // 16
    elif "layer1.0.conv3.weight" in shapes:
        traits["architecture"] = "ResNet with bottlenecks"
    elif "layer1.0.conv1.weight" in shapes:
        final = {"bn1.weight": "ResNet", "bn.weight": "PreActResNet"}
        traits["architecture"] = next((final[name] for name in final if name in shapes), "PreActResNet")
        if traits["architecture"] == "PreActResNet":
            traits["final_norm"] = "bn.weight" in shapes
        traits["depth"] = 2 * len(blocks) + 2
    elif "conv3.weight" in shapes:
        traits["architecture"] = "SmallCnn"
    if len(stem := shapes.get("conv1.weight", [])) == 4:
        if traits.get("architecture") != "WideResNet":
            traits["width"] = stem[0]
        traits["channels"] = stem[1]
        traits["kernel of conv1"] = stem[2]
    if len(head := shapes.get("linear.weight", [])) == 2:
        traits["classes"] = head[0]
    return traits
