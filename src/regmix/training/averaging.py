"""The averaged copy of a model that training keeps beside it."""

import copy
from functools import cached_property
from itertools import compress

import torch
from torch import Tensor, nn

from regmix.config.averaging import Averaging
from regmix.runtime.sharded import load, local


class AveragedWeights:
    """Keeps the average of a model's parameters and floating-point buffers (BatchNorm statistics included).

    A tensor of several names counts once, and parameters that require no gradient are copied. Both models may still be
    moved or sharded before the first update.
    """

    def __init__(self, model: nn.Module, averaging: Averaging, steps_per_epoch: int) -> None:
        self._averaging, self._steps_per_epoch, self._t = averaging, steps_per_epoch, 0
        with torch.no_grad():  # a copy of a scripted module would be part of a graph
            self.module = copy.deepcopy(model)
        """The model that carries the averaged weights."""
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        self._model = model

    @cached_property
    def _pairs(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """The tensors of the average and of the model that belong together: those that are averaged, and the others.

        Others are counts, and weights that do not learn: rounding would move their average.
        """
        ours, theirs = ([*one.parameters(), *one.buffers()] for one in (self.module, self._model))
        pairs = [*zip(ours, theirs, strict=True)]
        frozen = {id(one) for one in self._model.parameters() if not one.requires_grad}
        moving = [theirs.is_floating_point() and id(theirs) not in frozen for _, theirs in pairs]
        return [*compress(pairs, moving)], [p for p, moves in zip(pairs, moving, strict=True) if not moves]

    @torch.no_grad()
    def update(self, stats: dict[str, Tensor]) -> None:
        """Moves the average towards the model by one update."""
        decay = self._averaging.decay(self._t, self._steps_per_epoch, stats)
        values, others = self._pairs
        averaged, current = ([local(t) for t in one] for one in zip(*values, strict=True))
        if decay.device.type == "cpu":
            torch._foreach_lerp_(averaged, current, float(1 - decay))
        else:
            # By hand, because a foreach lerp takes no weight that lies on the device.
            decay = decay.to(averaged[0].dtype)
            torch._foreach_mul_(averaged, decay)
            torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - decay))
        for ours, theirs in others:
            ours.copy_(theirs)
        self._t += 1

    def state_dict(self) -> dict[str, object]:
        return {"model": self.module.state_dict(), "t": self._t}

    def load_state_dict(self, state: dict[str, object]) -> None:
        model, t = state["model"], state["t"]
        assert isinstance(model, dict)
        assert isinstance(t, int)
        load(self.module, model)
        self._t = t
