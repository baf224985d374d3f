"""The optimizer of an experiment, and its groups of parameters."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from regmix.config import Experiment
from regmix.runtime import processes


def make_optimizer(model: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW (arXiv 1711.05101) over groups of parameters with their own rate and weight decay."""
    groups = [*_groups(model, experiment)]
    alone = next(model.parameters()).is_cuda and processes.size() == 1
    # One pass over the weights on a GPU. On a CPU, and for weights that are sharded, every operation passes over them.
    how = {"fused": True} if alone else {"foreach": True}
    if experiment.optimizer == "adamw":
        betas = (experiment.momentum, 0.999)
        return torch.optim.AdamW(groups, experiment.lr, betas, weight_decay=experiment.weight_decay, **how)
    return torch.optim.SGD(
        groups, experiment.lr, momentum=experiment.momentum, weight_decay=experiment.weight_decay, **how
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float, momentum: float) -> None:
    """Sets the learning rate, times each group's own factor, and the momentum (AdamW: beta_1)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)  # runs saved before there were factors lack them
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def _groups(model: nn.Module, experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Parameters with the same rate and the same weight decay, each parameter once."""
    if experiment.decayed == "all" and experiment.layer_decay == 1:
        yield {"params": [*model.parameters()]}
        return
    depth = _layers_after(model)
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = experiment.decayed == "all" or parameter.ndim > 1
        kind = experiment.layer_decay ** depth[name], experiment.weight_decay if decays else 0.0
        kinds.setdefault(kind, []).append(parameter)
    for (factor, decay), parameters in kinds.items():
        yield {"params": parameters, "factor": factor, "weight_decay": decay}


def _layers_after(model: nn.Module) -> dict[str, int]:
    """For every parameter the number of layers with weights that follow its own, in the order of registration.

    A layer is a module that itself has a parameter of at least two dimensions. Biases, normalisation layers and single
    parameters count with the layer before them.
    """
    number, layer, numbers = 0, "", dict[str, int]()
    for name, parameter in model.named_parameters():
        module = name.rpartition(".")[0]
        if parameter.ndim > 1 and module != layer:
            number, layer = number + 1, module
        numbers[name] = number
    return {name: number - own for name, own in numbers.items()}
