"""What several training methods share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from regmix.attacks import Ascent
from regmix.methods.memory import Memory
from regmix.objectives import cross_entropy, precise
from regmix.runtime import processes
from regmix.threats import Threat
from regmix.types import Batch, Clock, Images, Losses, require


def check_attack(steps: int, step_size: float) -> None:
    """Raises UserError unless there is at least one step, of positive length."""
    require(steps >= 1, f"method steps is {steps}; it must be at least 1")
    require(0 < step_size < float("inf"), f"method step_size is {step_size}; it must be positive, in units of eps")


def check_weights(**weights: float) -> None:
    """Raises UserError for a weight that is negative or not finite."""
    for name, weight in weights.items():
        require(0 <= weight < float("inf"), f"method {name} is {weight}; it must be 0 or positive")


def proximal_losses(model: nn.Module, batch: Batch, ascent: Ascent, lam: float) -> Losses:
    """CE(f(x + delta'), y) + lam mean((f(x + delta') - f(x + delta))^2), the mean over every logit.

    delta is the start of the attack and delta' its end; gradients flow through both outputs.
    """
    before, after = ascent.first_logits, model(batch.x + ascent.delta)
    distance = (precise(after) - precise(before)).square().mean()
    terms = {"classify": batch.mean(cross_entropy(after, batch.target)), "proximity": lam * distance}
    return Losses(terms, after, {"proximity": distance.detach()})


def attack_ratio(batch: Batch, after: Tensor, before: Tensor) -> Tensor:
    """The accuracy after an attack divided by that before it, from the logits; divides by at least one example."""
    hits = torch.stack([(logits.argmax(1) == batch.y).sum() for logits in (after, before)])
    totals = processes.total(hits).to(batch.x.dtype)
    return totals[0] / totals[1].clamp_min(1)


def remembered_or_corner(batch: Batch, threat: Threat, memory: Memory, clock: Clock, reset: int) -> Tensor:
    """The remembered perturbations; a random corner in every `reset`-th epoch, the first one included."""
    if clock.epoch % reset == 0:
        return threat.corner(batch.x)
    return memory["delta"].read(batch)


def keep_next_start(batch: Batch, threat: Threat, memory: Memory, delta: Images, momentum: Images) -> None:
    """Keeps each sample's momentum, and P[delta + eps direction(momentum)] as its next start."""
    memory["delta"].write(batch, threat.project(delta + threat.eps * threat.direction(momentum), batch.x))
    memory["momentum"].write(batch, momentum)


def mean_one(gradient: Images) -> Images:
    """The gradients of a batch divided by their mean absolute element; zeros stay zeros."""
    return gradient / processes.mean(gradient.abs()).clamp_min(torch.finfo(gradient.dtype).tiny)


@contextmanager
def batchnorm_mode(model: nn.Module, mode: Literal["train", "eval"]) -> Iterator[None]:
    """Runs BatchNorm on the batch's statistics and updates the running ones (train), or on the running ones (eval).

    A layer that is in evaluation mode while its model is in train mode is frozen, and stays in evaluation mode.
    """
    if mode == "train" and model.training:
        yield
        return
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    layers = [layer for layer in norms if layer.training != (mode == "train")]
    for layer in layers:
        layer.train(mode == "train")
    try:
        yield
    finally:
        for layer in layers:
            layer.train(mode != "train")
