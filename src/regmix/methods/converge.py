"""ConvergeSmooth (arXiv 2308.12857): a term that keeps the loss on clean or noisy images from jumping."""

import torch
from torch import Tensor

from regmix.methods.memory import Memory, Setup
from regmix.methods.storage import OneForAll
from regmix.runtime import processes
from regmix.types import Batch, Clock


def history(setup: Setup) -> OneForAll:
    """The memory of `converge_weight`: sum and number of this epoch's losses, and the mean of the epoch before."""
    return OneForAll((3,), setup.device)


def is_active(clock: Clock, begin: int) -> bool:
    """Whether the term counts: from epoch `begin`, counted from 0, on, but not in the last epoch."""
    return begin <= clock.epoch < clock.epochs - 1


def converge_weight(batch: Batch, memory: Memory, clock: Clock, loss: Tensor, threshold: float, begin: int) -> Tensor:
    """k = sign(L - L') where |L - L'| > threshold, else 0, with L the batch's loss and L' its mean in the last epoch.

    In epochs in which the term does not count, k is 0. The loss is added to the mean of the present epoch, if it is
    finite.
    """
    own = processes.mean(loss.detach())
    total, count, before = memory["history"].read(batch).to(own.dtype)
    if clock.step == 0:
        before, total, count = total / count.clamp_min(1), torch.zeros_like(total), torch.zeros_like(count)
    fine = own.isfinite()
    memory["history"].write(batch, torch.stack([total + torch.where(fine, own, 0.0), count + fine, before]))
    if not is_active(clock, begin):
        return torch.zeros_like(own)
    gap = own - before
    return torch.where(gap.abs() > threshold, gap.sign(), 0.0)
