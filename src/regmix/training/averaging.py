"""The averaged copy of a model that training keeps."""

import copy
from functools import cached_property
from itertools import compress

import torch
from torch import Tensor, nn

from regmix.config.averaging import Averaging
from regmix.runtime.sharded import load, local


class AveragedWeights:
    """Keeps the average of a model's parameters and floating-point buffers (BatchNorm statistics included).

    A tensor with several names counts once. Parameters that require no gradient, and counts, are copied. Both models
    may still be moved or sharded before the first update.
    """

    def __init__(self, model: nn.Module, averaging: Averaging, steps_per_epoch: int) -> None:
        self._averaging, self._steps_per_epoch, self._t = averaging, steps_per_epoch, 0
        with torch.no_grad():  # otherwise a copied scripted module becomes part of a graph
            self.module = copy.deepcopy(model)
        """The model that carries the averaged weights."""
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        self._model = model

    @cached_property
    def _pairs(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Pairs (tensor of the average, tensor of the model): those that are averaged, and those that are copied.

        Frozen weights are copied, because rounding would change their average.
        """
        ours, theirs = ([*model.parameters(), *model.buffers()] for model in (self.module, self._model))
        pairs = [*zip(ours, theirs, strict=True)]
        frozen = {id(parameter) for parameter in self._model.parameters() if not parameter.requires_grad}
        averaged = [tensor.is_floating_point() and id(tensor) not in frozen for tensor in theirs]
        return [*compress(pairs, averaged)], [*compress(pairs, [not each for each in averaged])]

    @torch.no_grad()
    def update(self, stats: dict[str, Tensor]) -> None:
        """Updates the average with the current weights; `stats` are the statistics of the method's step."""
        decay = self._averaging.decay(self._t, self._steps_per_epoch, stats)
        to_average, to_copy = self._pairs
        averaged, current = ([local(tensor) for tensor in tensors] for tensors in zip(*to_average, strict=True))
        if decay.device.type == "cpu":
            torch._foreach_lerp_(averaged, current, float(1 - decay))
        else:
            # Two operations, because a foreach lerp takes no weight on the device.
            decay = decay.to(averaged[0].dtype)
            torch._foreach_mul_(averaged, decay)
            torch._foreach_add_(averaged, torch._foreach_mul(current, 1 - decay))
        if to_copy:
            copies, originals = ([local(tensor) for tensor in tensors] for tensors in zip(*to_copy, strict=True))
            torch._foreach_copy_(copies, originals)
        self._t += 1

    def state_dict(self) -> dict[str, object]:
        return {"model": self.module.state_dict(), "t": self._t}

    def load_state_dict(self, state: dict[str, object]) -> None:
        model, t = state["model"], state["t"]
        assert isinstance(model, dict)
        assert isinstance(t, int)
        load(self.module, model)
        self._t = t
