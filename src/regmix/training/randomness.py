"""Random numbers of a training: drawn anew from (seed, epoch), and saved in the middle of an epoch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from regmix.runtime import processes


def seed(number: int, epoch: int, step: int) -> None:
    """Seeds torch for the rest of an epoch, differently on every rank.

    Args:
        number: the seed of the experiment.
        step: the step at which the rest begins; 0 is the whole epoch.
    """
    torch.manual_seed(number * 1_000_003 + epoch + (step << 32) + (processes.rank() << 52))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators on the CPU and on this device."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restores what `random_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
