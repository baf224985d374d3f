"""Reading weights: our own files, and the checkpoints of public code bases with their many namings."""

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from regmix.types import UserError

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "ema", "model_ema")
"""Entries under which training scripts keep the weights, in the order in which they are looked for."""
WRAPPERS = re.compile(r"^(?:(?:module|model|_orig_mod|_forward_module|basic_net|net|network|1)\.)+")
"""Prefixes that wrappers put before a parameter's name; nn.Sequential(normalise, network) makes it "1."."""
NORMALISATION = re.compile(r"(?:(?:\w*normali[sz]\w*|norm|0)\.)?(?:new_)?(?:(mean|mu)|(std|sigma))")
"""A normalisation's own entries: its centre, or its spread."""
UNUSED = re.compile(r"sub_block1\.|attacker\.|n_averaged$")
"""What public checkpoints hold beside the network: TRADES' unused copy of a stage, the second copy of the
model in those of the `robustness` package, the counter of torch's AveragedModel."""


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Loads .safetensors, torch's .pt / .pth without pickled code, or a state dict into the model, strictly.

    Containers such as {"state_dict": ...}, prefixes such as `module.` and other names of the same thing (fc
    or linear, downsample or shortcut, mu or normalize.mean) are understood. Where the source has no
    normalisation or no BatchNorm step counters, those of the model stay. Raises UserError, with the model
    untouched, for a file that cannot be read and for missing, unexpected or misshapen entries.
    """
    if isinstance(source, Mapping):
        title, content = "the state dict", source
    else:
        title, content = str(source), _read(Path(source))
    own = model.state_dict()
    state = _translate(_unwrap(content, title), own, title)
    problems = [
        _few("missing", (name for name in own if name not in state)),
        _few("unexpected", (name for name in state if name not in own)),
        _few(
            "other shape",
            (
                f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
                for name in own
                if name in state and state[name].shape != own[name].shape
            ),
        ),
    ]
    if any(problems):
        reasons = [*filter(None, problems), *_guess(state, own)]
        raise UserError(f"{title} does not fit the model: {'; '.join(reasons)}")
    model.load_state_dict(state)


def _read(path: Path) -> Any:
    """The content of a file, or UserError."""
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise UserError(f"{path} is truncated or no safetensors file ({error})") from None
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


def _unwrap(content: Any, title: str) -> dict[str, Tensor]:
    """The tensors inside any nesting of containers."""
    while isinstance(content, Mapping):
        inner = next((content[name] for name in CONTAINERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
            if state:
                return state
            raise UserError(f"{title} holds no weights; {_few('its entries are', map(str, content)) or 'it is empty'}")
        content = inner
    raise UserError(f"{title} holds no state dict but a {type(content).__name__}")


def _canonical(name: str) -> str:
    """One name for what the code bases name differently."""
    name = WRAPPERS.sub("", name)
    if match := NORMALISATION.fullmatch(name):
        return "normalise.mean" if match[1] else "normalise.std"
    name = re.sub(r"^(?:fc|classifier)\.(weight|bias)$", r"linear.\1", name)
    return name.replace(".downsample.", ".shortcut.")


def _translate(state: dict[str, Tensor], own: dict[str, Tensor], title: str) -> dict[str, Tensor]:
    """The state under the model's names, completed by what a checkpoint may leave out."""
    names = {_canonical(name): name for name in own}
    if len(names) < len(own):  # a model with two networks in it, say, whose prefixes tell them apart
        return state
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        target = names.get(_canonical(name), name)
        if target not in own and UNUSED.match(WRAPPERS.sub("", name)):
            continue
        if target in result:
            raise UserError(f"{title} holds {target} twice under different prefixes; keep one set of weights")
        result[target] = value
    normalisation = {names[name] for name in ("normalise.mean", "normalise.std") if name in names}
    for name in normalisation & result.keys():
        if result[name].numel() == own[name].numel():  # also [C] and [C, 1, 1] are in use
            result[name] = result[name].reshape(own[name].shape)
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    if not normalisation & result.keys():
        optional |= normalisation
    return result | {name: own[name] for name in optional - result.keys()}


def _few(title: str, names: Iterable[str]) -> str:
    """Title, the first three names and how many more there are; empty without names."""
    first, rest = (every := list(names))[:3], every[3:]
    return f"{title} {', '.join(first)}{f' and {len(rest)} more' if rest else ''}" if first else ""


def _guess(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """What could explain the difference, as far as shapes and names tell."""
    theirs, ours = _describe(state), _describe(own)
    differing = [trait for trait in ours if trait in theirs and ours[trait] != theirs[trait]]
    if "architecture" in differing:
        differing = ["architecture"]
    return [f"the file looks like {trait} {theirs[trait]}, the model has {ours[trait]}" for trait in differing]


def _describe(state: dict[str, Tensor]) -> dict[str, str | int]:
    """Architecture, depth, width, channels and classes, as far as a state dict shows them."""
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
        traits["architecture"] = next(
            (final[name] for name in final if name in shapes), "PreActResNet without its final bn"
        )
        traits["depth"] = 2 * len(blocks) + 2
    elif "conv3.weight" in shapes:
        traits["architecture"] = "SmallCnn"
    if len(stem := shapes.get("conv1.weight", [])) == 4:
        if traits.get("architecture") != "WideResNet":
            traits["width"] = stem[0]
        traits["channels"] = stem[1]
    if len(head := shapes.get("linear.weight", [])) == 2:
        traits["classes"] = head[0]
    return traits
