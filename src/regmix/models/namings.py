"""The names that public code bases give to the same tensors, and what the names say about a network."""

import re
from collections.abc import Mapping

from torch import Tensor

WRAPPERS = re.compile(r"(?:module|model|_orig_mod|_forward_module|basic_net|net|network|1)\.")
"""Prefixes that wrappers put before a parameter's name; "1." comes from nn.Sequential(normalise, network)."""
NORMALISATION = re.compile(r"(?:(?:\w*normali[sz]\w*|norm|0)\.)?(?:new_)?(?:(mean|mu)|(std|sigma))")
"""Entries of an input normalisation: its mean (group 1) or its standard deviation (group 2)."""
UNUSED = re.compile(r"sub_block1\.|attacker\.|n_averaged$")
"""Entries of public checkpoints that do not belong to the network: the unused copy of a stage in TRADES, the second
copy of the model in those of the `robustness` package, and the counter of torch's AveragedModel."""


def unwrapped(name: str) -> str:
    """The name without the prefixes of wrappers."""
    end = 0
    while step := WRAPPERS.match(name, end):
        end = step.end()
    return name[end:]


def is_normalisation(name: str) -> bool:
    """Whether the name is that of the mean or standard deviation of an input normalisation."""
    return NORMALISATION.fullmatch(unwrapped(name)) is not None


def canonical(name: str) -> str:
    """The same name for tensors that code bases name differently."""
    name = unwrapped(name)
    if match := NORMALISATION.fullmatch(name):
        return "normalise.mean" if match[1] else "normalise.std"
    name = re.sub(r"^(?:fc|classifier)\.(weight|bias)$", r"linear.\1", name)
    return name.replace(".downsample.", ".shortcut.")


def guess(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Possible reasons why a state does not fit the model, from shapes and names."""
    theirs, ours = _describe(state), _describe(own)
    differing = [trait for trait in ours if trait in theirs and ours[trait] != theirs[trait]]
    if "architecture" in differing:
        differing = ["architecture"]
    return [f"the file looks like {trait} {theirs[trait]}, the model has {ours[trait]}" for trait in differing]


def _describe(state: Mapping[str, Tensor]) -> dict[str, str | int]:
    """Architecture, depth, width, first convolution, channels and classes, as far as a state dict shows them."""
    shapes = {canonical(name): list(value.shape) for name, value in state.items()}
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
