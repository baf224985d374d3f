"""Adversarial weight perturbation (AWP): the gradient of an update is computed at perturbed weights."""

from collections.abc import Callable

import torch
from torch import nn

from regmix.methods.memory import Memory
from regmix.runtime.borrowed import same_buffers
from regmix.types import Losses


def at_perturbed_weights(
    step: Callable[[Memory | None], Losses], model: nn.Module, memory: Memory | None, size: float
) -> Losses:
    """Computes a batch's losses and gradients at w + v, with v = size ||w|| g / ||g|| in every layer, g = grad loss(w).

    Args:
        step: computes a batch's losses, and their gradients into .grad.
        size: ||v|| / ||w|| of every weight matrix and kernel; biases and BatchNorm are not perturbed.

    Calls `step` twice; the first call changes neither the memory nor BatchNorm's statistics. Afterwards the weights
    are exactly w again. Source: AWP, arXiv 2004.05884. Deviations from its code: the attack is repeated at w + v (the
    code keeps the adversarial examples of w), which doubles the cost of a fast method, and weight decay applies to w.
    """
    with same_buffers(model):
        step(memory.read_only() if memory is not None else None)
    layers = [p for p in model.parameters() if p.ndim > 1 and p.grad is not None]
    weights = [p.detach().clone() for p in layers]
    with torch.no_grad():
        for p in layers:
            assert p.grad is not None
            p.add_(p.grad * (size * p.norm() / p.grad.norm().clamp_min(1e-20)))
    model.zero_grad(set_to_none=True)
    losses = step(memory)
    with torch.no_grad():
        for p, w in zip(layers, weights, strict=True):
            p.copy_(w)
    return losses
