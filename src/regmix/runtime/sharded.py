"""Sharded weights (FSDP): every process keeps a share, and gathers the rest of a layer while it runs."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from regmix.runtime import processes
from regmix.runtime.layout import place

UNIT = 1_000_000
"""A block with at least this many parameters is gathered separately, not with the module that contains it."""
_HOLDERS = nn.Sequential, nn.ModuleList, nn.ModuleDict


def shard(model: nn.Module, device: torch.device) -> None:
    """Shards a model's parameters over the processes and moves it to the device. All processes must call it.

    Gradients are averaged over the processes, as with DDP, and optimisers hold state for the local share only. Every
    call of the model synchronises the processes. Second derivatives are not supported.
    """
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP supports no other
    mesh = init_device_mesh(device.type, (processes.size(),))
    for block in reversed([*_blocks(model)]):
        rest = sum(parameter.numel() for parameter in block.parameters() if not isinstance(parameter, DTensor))
        if rest >= UNIT:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to(device)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The composite members of the model's sequences and lists, outer ones first.

    The sequences themselves are left out, because a model may iterate over them instead of calling them. So are single
    layers, because the module above may use their weights directly.
    """
    for holder in model.modules():
        if isinstance(holder, _HOLDERS):
            yield from (m for m in holder.children() if [*m.children()] and not isinstance(m, _HOLDERS))


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether any of the tensors is sharded."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor; all of it if the tensor is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """Shards a complete tensor in the way of `like`, which has the same shape. All processes must call it."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)


def whole(tree: Any) -> Any:
    """Completes the sharded tensors in nested dictionaries, on rank 0 and the CPU only. All processes must call it."""
    if isinstance(tree, dict):
        return {name: whole(value) for name, value in tree.items()}
    if not isinstance(tree, DTensor):
        return tree
    tensor = tree.full_tensor()
    return tensor.cpu() if processes.rank() == 0 else tree


def load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads complete weights into a model, sharded or not."""
    own = model.state_dict()
    model.load_state_dict({name: share(value, own[name]) if name in own else value for name, value in state.items()})


def complete(outline: nn.Module, model: nn.Module, device: torch.device) -> nn.Module:
    """On rank 0 a copy of the outline with a sharded model's weights, else the outline. All processes must call it."""
    state = whole(model.state_dict())
    if processes.rank():
        return outline
    copied = copy.deepcopy(outline)
    copied.load_state_dict(state, assign=True)
    return place(copied, device)
