"""Weights of which every process keeps a share, and borrows the others' while a layer runs (FSDP)."""

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
"""Parameters from which on a block of the model is gathered on its own, rather than with what contains it."""
_HOLDERS = nn.Sequential, nn.ModuleList, nn.ModuleDict


def shard(model: nn.Module, device: torch.device) -> None:
    """Deals a model's parameters out to the processes, which must all call it, and moves it to the device.

    Gradients come averaged over the processes, as with DDP, and optimisers keep what belongs to the shares. Whenever
    the model is called the processes meet. Second derivatives are not to be had.
    """
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP takes no other
    mesh = init_device_mesh(device.type, (processes.size(),))
    for block in reversed([*_blocks(model)]):
        rest = sum(parameter.numel() for parameter in block.parameters() if not isinstance(parameter, DTensor))
        if rest >= UNIT:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to(device)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The members of the model's sequences and lists that consist of layers, each before those within it.

    Sequences may be walked through instead of called, and lone layers may lend their weights to the module above.
    """
    for holder in model.modules():
        if isinstance(holder, _HOLDERS):
            yield from (m for m in holder.children() if [*m.children()] and not isinstance(m, _HOLDERS))


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether one of them is."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def local(tensor: Tensor) -> Tensor:
    """What this process keeps of a tensor: all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """A complete tensor, sharded if the other one, of the same shape, is; all processes must call it."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)


def whole(tree: Any) -> Any:
    """Dictionaries of tensors, with sharded ones complete, on the CPU, in the first process; all must call it."""
    if isinstance(tree, dict):
        return {name: whole(value) for name, value in tree.items()}
    if not isinstance(tree, DTensor):
        return tree
    tensor = tree.full_tensor()
    return tensor.cpu() if processes.rank() == 0 else tree


def load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives a model, sharded or not, the weights of a complete one."""
    own = model.state_dict()
    model.load_state_dict({name: share(value, own[name]) if name in own else value for name, value in state.items()})


def complete(outline: nn.Module, model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the outline with a sharded model's weights, for the first process; all must call it."""
    state = whole(model.state_dict())
    if processes.rank():
        return outline
    found = copy.deepcopy(outline)
    found.load_state_dict(state, assign=True)
    return place(found, device)
