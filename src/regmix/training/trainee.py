"""The trainee: everything that a training changes, the step that changes it, and what is saved of it."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from regmix.config import Experiment, NoAveraging
from regmix.data import ImageSet
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.remedies import remedy
from regmix.runs import Checkpoint
from regmix.runs.records import Epoch
from regmix.runtime import processes
from regmix.runtime.layout import place
from regmix.runtime.sharded import complete, load, shard, share, whole
from regmix.runtime.synced import synced
from regmix.training.accumulation import joined, parts_of
from regmix.training.averaging import AveragedWeights
from regmix.training.awp import at_perturbed_weights
from regmix.training.finite import Finite
from regmix.training.optimizer import make_optimizer, set_rate
from regmix.training.progress import Progress
from regmix.training.randomness import random_state, seed, set_random_state
from regmix.training.readiness import kept_in_eval, train_mode
from regmix.training.recorded import Made, RecordedSteps
from regmix.training.statistics import Statistics
from regmix.training.step import TrainStep
from regmix.training.tally import Tally
from regmix.types import Batch, Clock, Losses


class Trainee:
    """Model, optimizer, averaged weights, the method's memory, sums over the epoch, and progress.

    State: the attributes `model`, `optimizer`, `averaged`, `memory`, `tally` and `progress`, and torch's random state.
    Step: `learn`. Saved: `state_dict`, which resuming needs, and `weights`, which is what users load.
    """

    def __init__(
        self, fabric: Fabric, model: nn.Module, experiment: Experiment, images: ImageSet, steps_per_epoch: int,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._fabric, self._experiment, self._images, self._note = fabric, experiment, images, note
        self._steps_per_epoch = steps_per_epoch
        if experiment.sync_batchnorm and processes.size() > 1:
            model = synced(model, fabric.device)
        self.model = model
        self.averaged: AveragedWeights | None = None
        if not isinstance(experiment.averaging, NoAveraging):
            self.averaged = AveragedWeights(model, experiment.averaging, steps_per_epoch)
        self._outline = copy.deepcopy(model) if experiment.shard_weights and processes.size() > 1 else None
        """A complete copy of a model whose weights are sharded."""
        for network in (model, self.averaged.module) if self.averaged is not None else (model,):
            if self._outline is not None:
                shard(network, fabric.device)
            else:
                place(network, fabric.device)
        self.optimizer = make_optimizer(model, experiment)
        self._module = TrainStep(
            model, experiment.method, experiment.threat, len(images.classes), experiment.label_mass, experiment.ramp,
            label_rest=experiment.label_rest, ramp_of=experiment.ramp_of,
        )  # fmt: skip
        self._wrapped = fabric.setup_module(self._module)
        self._finite, self._statistics = Finite(model), Statistics(model)
        self._learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._kept_in_eval = kept_in_eval(model)
        self.memory = self._new_memory(experiment.method)
        self._recorded = self._recorded_steps(experiment.method)
        self.tally = Tally(fabric.device, steps_per_epoch)
        self.progress = Progress()

    def _new_memory(self, method: Method) -> Memory | None:
        images, experiment = self._images, self._experiment
        classes, device = len(images.classes), self._fabric.device
        return method.memory(Setup(len(images), classes, images.shape, experiment.threat, experiment.border, device))

    def _recorded_steps(self, method: Method) -> RecordedSteps:
        return RecordedSteps(self._experiment, method, self._fabric.device, self.model, self._note)

    # Steps

    def begin(self) -> None:
        """Puts the model into train mode, except for the parts that came in evaluation mode."""
        train_mode(self.model, self._kept_in_eval)

    def learn(self, batch: Batch) -> None:
        """Makes the next step of the current epoch with this batch, or skips it."""
        experiment, progress = self._experiment, self.progress
        if not progress.step:
            self._seed()
        if progress.step not in progress.skipped:
            made = progress.step - sum(step < progress.step for step in progress.skipped)
            clock = Clock(progress.epoch, experiment.epochs, made, self._steps_per_epoch)
            awp = experiment.awp if progress.epoch >= experiment.awp_warm_up else 0.0
            passes = partial(self._passes, clock, awp)
            if self._module.share(clock) < 1:  # the numbers of a ramp change from step to step
                losses, fine = passes(batch)
            else:
                phase = self._module.method.phase(clock), awp
                losses, fine = self._recorded(batch, phase, self.memory, passes)
            self._set_rate()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.averaged is not None:
                self.averaged.update(losses.stats)
            self.tally.add(progress.step, batch, losses, fine)
        progress.step += 1

    def _passes(self, clock: Clock, awp: float, batch: Batch) -> Made:
        """All of a step before the weights change: the losses of a batch, and their gradients, finite and clipped."""
        self._finite.begin()
        if awp:
            losses = at_perturbed_weights(partial(self._pass, clock, batch), self.model, self.memory, awp)
        else:
            losses = self._pass(clock, batch, self.memory)
        fine = self._finite.end(look=self._recorded.recorder is None)
        if self._experiment.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._experiment.clip_norm)
        return Made(losses, fine)

    def _pass(self, clock: Clock, batch: Batch, memory: Memory | None) -> Losses:
        """Computes the losses of a batch, in parts if asked, and their gradients."""
        made = [(part, self._part(clock, part, memory)) for part in parts_of(batch, self._experiment.accumulate)]
        return joined(made)

    def _part(self, clock: Clock, batch: Batch, memory: Memory | None) -> Losses:
        """Computes the losses of a part of a batch, and adds their gradients to .grad."""
        if self._outline is not None and (statistics := self._statistics.read()) is not None:
            self._statistics.write(processes.as_first(statistics))  # as DDP does before a forward pass
        losses: Losses = self._wrapped(batch, memory, clock)
        total = losses.total if batch.weight == 1 else losses.total * batch.weight
        # Naming the parameters keeps a forward pass that attack and loss share from computing the gradient of the
        # perturbation again. With sharded weights other tensors than the parameters take part, so no names there.
        self._fabric.backward(total, inputs=self._learned if self._outline is None else None)
        return losses

    def _seed(self) -> None:
        seed(self._experiment.seed, self.progress.epoch, self.progress.step)

    def _set_rate(self) -> None:
        """Sets learning rate and momentum as the schedule says."""
        experiment, steps = self._experiment, self._steps_per_epoch
        done = self.progress.epoch * steps + self.progress.step
        rate = experiment.lr * experiment.schedule.factor(done, steps, experiment.epochs)
        momentum = experiment.schedule.momentum(done, steps, experiment.epochs)
        set_rate(self.optimizer, rate, experiment.momentum if momentum is None else momentum)

    def end_epoch(self, validation: dict[str, float] | None) -> Epoch:
        """Moves on to the next epoch; returns the row of metrics of the one that has ended."""
        progress, means = self.progress, self.tally.means()
        terms = {name.removeprefix("terms/"): v for name, v in means.items() if name.startswith("terms/")}
        stats = {name.removeprefix("stats/"): v for name, v in means.items() if name.startswith("stats/")}
        row = Epoch(
            epoch=progress.epoch + 1,
            epochs=self._experiment.epochs,
            step=(progress.epoch + 1) * self._steps_per_epoch,
            lr=max(group["lr"] for group in self.optimizer.param_groups),
            loss=sum(terms.values()),
            terms=terms,
            per_example={name: value for name, value in stats.items() if name in terms},
            stats={name: value for name, value in stats.items() if name not in terms},
            train_robust=means["train_robust"],
            validation=validation,
            lost_steps=sorted(self.tally.bad_steps() + progress.skipped),
            images_per_second=len(self._images) / progress.trained,
            waited=progress.waited / progress.trained,
            seconds=progress.seconds,
        )
        progress.end_epoch(row)
        self.tally = Tally(self._fabric.device, self._steps_per_epoch)
        return row

    @property
    def method(self) -> Method:
        """The method of the next step: the experiment's, or the guard's remedy."""
        return self._module.method

    def switch(self, level: int) -> str:
        """Replaces the method by the guard's remedy after the level-th rollback (0: none); returns its name."""
        method = remedy(self._experiment.method, level) if level else self._experiment.method
        if level != self.progress.rollbacks:
            self.progress.rollbacks = level
            self._module.method, self.memory = method, self._new_memory(method)
            self._recorded = self._recorded_steps(method)
        return type(method).__name__

    # What is saved

    def complete(self) -> tuple[nn.Module, nn.Module | None]:
        """The model and the averaged one with all their weights, so that rank 0 can call them alone.

        All processes must call it.
        """
        averaged = self.averaged.module if self.averaged is not None else None
        if self._outline is None:
            return self.model, averaged
        device = self._fabric.device
        model = complete(self._outline, self.model, device)
        return model, complete(self._outline, averaged, device) if averaged is not None else None

    def weights(self) -> dict[Checkpoint, dict[str, Tensor]]:
        """The weights of the checkpoints `last` and, if there is an average, `averaged`; all processes must call it."""
        states: dict[Checkpoint, dict[str, Tensor]] = {"last": whole(self.model.state_dict())}
        if self.averaged is not None:
            states["averaged"] = whole(self.averaged.module.state_dict())
        return states

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, in the middle of an epoch or between two: tensors and plain values only.

        All processes must call it.
        """
        return {
            **self.progress.state_dict(),
            "tally": self.tally.state_dict(),
            "random": processes.every(random_state(self._fabric.device)),
            "model": whole(self.model.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "averaged": whole(self.averaged.state_dict()) if self.averaged is not None else None,
            "memory": self.memory.state_dict() if self.memory is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any], source: Path) -> None:
        """Restores what `state_dict` returned, also that of another number of processes; errors name its source."""
        self.switch(state["rollbacks"])
        self._recorded.forget()
        self.progress.load_state_dict(state, source)
        load(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():
            moments.update({name: share(value, parameter) for name, value in moments.items()})
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        self.tally.load_state_dict(state["tally"])
        if len(state["random"]) == processes.size():
            set_random_state(state["random"][processes.rank()], self._fabric.device)
        else:
            self._seed()
