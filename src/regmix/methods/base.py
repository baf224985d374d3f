"""The base class of training methods."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from regmix.attacks import IN_PLACE, explained, logits_in
from regmix.methods.memory import Memory, Setup, check_positions
from regmix.methods.storage import Part
from regmix.threats import Threat, check_threat
from regmix.types import Batch, Clock, Losses, UserError, as_batch, check_values, require

_CHECKED: "WeakSet[nn.Module]" = WeakSet()  # models that have seen a batch whose numbers were checked
START = Clock(epoch=0, epochs=1, step=0, steps=1)


class Method(ABC):
    """A training method: computes the terms of the loss of a batch. A frozen dataclass whose fields are its settings.

    Users call a method. The training loop, whose batches are known to be right, calls `compute`, which checks nothing.
    """

    title: ClassVar[str]
    """The name for people."""
    second_order = False
    """Whether it takes second derivatives of the model."""
    reports_ratio = False
    """Whether it reports the statistic `ratio`: the accuracy of the batch after the attack divided by that before."""

    at_once = 1
    """How many images it shows the model in one pass at most, for each image of the batch."""
    needs_features = False
    """Whether it needs the features of the model, which only models that end with a linear layer have."""
    hard_labels = False
    """Whether its loss needs one class per image, so that mixed labels have no meaning for it."""
    adversarial = True
    """Whether it attacks the images that it learns from."""

    @property
    def chosen_by(self) -> Literal["pgd", "clean"]:
        """The accuracy on the validation images that chooses the best weights, under PGD-10 or without an attack."""
        return "pgd" if self.adversarial else "clean"

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in commands and files."""

    @property
    def needs_clock(self) -> bool:
        """Whether it needs to know how far the training is."""
        return False

    def phase(self, clock: Clock) -> Hashable:
        """What `compute` takes from the clock: in two steps of equal phase it does the same operations with the same
        numbers, so that one can be recorded for both. None: not known, so that nothing is recorded."""
        return None if self.needs_clock else ()

    @property
    def replays(self) -> int:
        """How many steps in a row see the same batch; an epoch then shows every image once on average."""
        return 1

    @property
    def guarded(self) -> bool:
        """Whether the guard against catastrophic overfitting watches it: its attack has one to three steps."""
        return self.adversarial and getattr(self, "steps", 1) <= 3

    def memory(self, setup: Setup) -> Memory | None:
        """What it remembers from step to step, empty; None if it remembers nothing."""
        return None

    def remembered(self, threat: Threat) -> tuple[Part, ...]:
        """The parts of its memory, for one tiny image: what kinds of things it remembers."""
        with torch.random.fork_rng([]):  # a memory may begin with random numbers
            memory = self.memory(Setup(1, 2, (1, 1, 1), threat))
        return () if memory is None else tuple(memory.parts.values())

    @abstractmethod
    def compute(self, model: nn.Module, batch: Batch, threat: Threat, memory: Memory | None, clock: Clock) -> Losses:
        """The losses of a batch that is known to be right."""

    def __call__(
        self, model: nn.Module, batch: Batch | tuple[Tensor, Tensor] | list[Tensor], threat: Threat,
        memory: Memory | None = None, clock: Clock | None = None,
    ) -> Losses:  # fmt: skip
        """The losses of a batch, Batch or (x, y).

        Checks types and shapes in every call. Checks the numbers in every call on the CPU; elsewhere only in a model's
        first call, because a step must not wait for its device.

        Raises:
            UserError: images outside [0, 1], labels that are not classes of the model, other shapes or types than
                those of Batch, a missing memory or clock, or a model that returns no logits or changes its images in
                place.
        """
        check_threat(threat)
        batch = as_batch(batch)
        if not batch.x.is_meta and (batch.x.device.type == "cpu" or model not in _CHECKED):
            check_values(batch)
            _CHECKED.add(model)
        if memory is not None:
            batch = check_positions(batch, memory)
        elif self.remembered(threat):
            raise UserError(
                f"{type(self).__name__} needs a memory, made once: memory = method.memory(Setup(images=len(train_set), "
                f"classes=classes, shape={(*batch.x.shape[1:],)}, threat=threat, device=x.device))"
            )
        if clock is None and self.needs_clock:
            raise UserError(
                f"{type(self).__name__} needs to know how far the training is; give "
                "clock=Clock(epoch, epochs, step, steps_per_epoch), counted from 0"
            )
        version = batch.x._version  # torch's count of changes, which does not wait for the device
        with explained(model, batch):
            losses = self.compute(model, batch, threat, memory, clock or START)
        require(batch.x._version == version, IN_PLACE)
        logits_in(losses.logits, len(batch.x))
        return losses
