"""Steps whose operations are recorded once and then repeated, so that the device does not wait for Python."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from regmix.config import Experiment
from regmix.methods.base import START, Method
from regmix.methods.memory import Memory
from regmix.models import FromElsewhere
from regmix.runtime import processes
from regmix.runtime.recorder import NotRecorded, recorder
from regmix.types import Batch, Losses, UserError

REHEARSALS = 3
"""Steps of a kind that are made as usual before one is recorded."""
MOST = 8
"""Recordings that are kept. An epoch has two sizes of batches, and few methods more than two phases."""

NOT_RECORDED = "the training step is not recorded as a CUDA graph"
"""How the line begins that says why."""


class Made(NamedTuple):
    """What the passes of a step give: the losses, and whether the gradients, which are in .grad, are finite."""

    losses: Losses
    fine: Bool[Tensor, ""]


def is_asked_for(experiment: Experiment, device: torch.device) -> bool:
    """Whether the steps are to be recorded, if they can be."""
    return experiment.cuda_graph == "on" or (experiment.cuda_graph == "auto" and device.type == "cuda")


def obstacle(experiment: Experiment, method: Method, device: torch.device) -> str | None:
    """Why the steps of an experiment are not recorded; "" where nobody asked for it."""
    if not is_asked_for(experiment, device):
        return ""
    if processes.size() > 1:
        return "several processes share a step"
    if method.second_order:
        return f"{method.name} takes second derivatives"
    if method.phase(START) is None:
        return f"{type(method).__name__} does not say what it takes from the clock; give it a `phase`"
    if experiment.cuda_graph == "auto" and isinstance(experiment.model, FromElsewhere):
        return "a model of your own must do the same in every pass; if it does, add --cuda-graph on"
    return None


def check_recordable(experiment: Experiment, device: torch.device) -> None:
    """Raises UserError if recorded steps are insisted on and impossible, as far as it shows before the first step."""
    if experiment.cuda_graph == "on" and (why := obstacle(experiment, experiment.method, device)):
        raise _impossible(why)


def _impossible(why: str) -> UserError:
    return UserError(f"the training step cannot be recorded: {why}; leave out --cuda-graph on")


@dataclass
class Recording:
    """A recorded step: where it reads its batch and leaves its results, and where the state lay that it changes."""

    batch: Batch
    made: Made
    gradients: list[Tensor | None]
    repeat: Callable[[], None]
    places: list[int]


class RecordedSteps:
    """Makes the passes of a step by repeating a recording where there is one for a step of its kind.

    Steps are of one kind if their batches have the same shapes and their `phase` is the same. The first three steps of
    a kind are made as usual, and tell whether it can be recorded. If state has moved to other memory since a recording,
    there is a new one. Without a recorder every step is made as usual.
    """

    def __init__(
        self, experiment: Experiment, method: Method, device: torch.device, model: nn.Module,
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._slots = [
            (held, name)
            for module in model.modules()
            for held in (module._parameters, module._buffers)
            for name, tensor in held.items()
            if tensor is not None
        ]
        """Where the modules hold their tensors; walking through the modules in every step would take longer."""
        self._note, self._insists = note, experiment.cuda_graph == "on"
        why = obstacle(experiment, method, device)
        self.recorder = recorder(device) if why is None else None
        self._seen: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, Recording] = {}
        if why:
            self._leave(why)

    def __call__(self, batch: Batch, phase: Hashable, memory: Memory | None, work: Callable[[Batch], Made]) -> Made:
        """What `work` makes of the batch; `memory` is what it changes beside the model."""
        if self.recorder is None:
            return work(batch)
        kind = phase, batch.weight, *((t.shape, t.stride(), t.dtype) for t in _tensors(batch))
        recording, places = self._recordings.get(kind), self._places(memory)
        if recording is not None:
            if recording.places == places:
                return self._repeat(recording, batch)
            del self._recordings[kind], self._seen[kind]
        self._seen[kind] += 1
        if self._seen[kind] <= REHEARSALS:
            made, why = self.recorder.rehearse(lambda: work(batch))
            if self._seen[kind] == REHEARSALS and not why and places != self._places(memory):
                why = "it replaces a tensor of its state instead of changing it in place"
            if why:
                self._leave(why)
            return made
        return self._record(kind, batch, memory, work)

    def forget(self) -> None:
        """Begins anew, because state was replaced."""
        self._seen.clear()
        self._recordings.clear()

    def _repeat(self, recording: Recording, batch: Batch) -> Made:
        for here, there in zip(_tensors(batch), _tensors(recording.batch), strict=True):
            there.copy_(here)
        recording.repeat()
        for parameter, gradient in zip(self._parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.made

    def _record(self, kind: Hashable, batch: Batch, memory: Memory | None, work: Callable[[Batch], Made]) -> Made:
        assert self.recorder is not None
        places = self._places(memory)
        own: Batch = tree_map_only(Tensor, Tensor.clone, batch)
        while len(self._recordings) >= MOST:
            del self._recordings[next(iter(self._recordings))]
        try:
            # Detached, so that the graph of the backward pass, and with it the memory of the passes, is free.
            made: Made
            made, repeat = self.recorder.record(lambda: tree_map_only(Tensor, Tensor.detach, work(own)))
        except NotRecorded as error:
            self._leave(str(error))
            for parameter in self._parameters:
                parameter.grad = None
            return work(batch)
        assert places == self._places(memory), "state that stays in place while a step is rehearsed does so later"
        gradients = [parameter.grad for parameter in self._parameters]
        self._recordings[kind] = Recording(own, made, gradients, repeat, places)
        return made

    def _places(self, memory: Memory | None) -> list[int]:
        """Where the model's and the memory's tensors lie."""
        kept = () if memory is None else memory.state_dict().values()
        return [tensor.data_ptr() for tensor in (*(held[name] for held, name in self._slots), *kept)]

    def _leave(self, why: str) -> None:
        if self._insists:
            raise _impossible(why)
        self.recorder = None
        self._recordings.clear()
        self._note(f"{NOT_RECORDED}: {why}")


def _tensors(batch: Batch) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
