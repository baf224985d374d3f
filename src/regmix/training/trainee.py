"""Everything that training changes, as one thing that makes a step, and can be saved and put back."""

import copy
from functools import partial
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from regmix.config.averaging import NoAveraging
from regmix.data import ImageSet
from regmix.methods.base import Method
from regmix.methods.memory import Memory, Setup
from regmix.methods.remedies import remedy
from regmix.runs import Checkpoint
from regmix.runtime import processes
from regmix.runtime.layout import place
from regmix.runtime.sharded import complete, load, shard, share, whole
from regmix.runtime.synced import synced
from regmix.training.averaging import AveragedWeights
from regmix.training.awp import at_perturbed_weights
from regmix.training.finite import Finite
from regmix.training.plan import Plan
from regmix.training.readiness import at_rest, train_mode
from regmix.training.statistics import Statistics
from regmix.training.step import TrainStep
from regmix.training.tally import Tally
from regmix.types import Batch, Clock, Losses


class Trainee:
    """The model, what moves it, what is remembered of it and of the images, and how far it is.

    epoch: epochs that are done. step: steps of the present one that are done. seconds: those spent so far. trained:
    those spent on the present epoch's steps. waited: those of them in which a step had no batch yet.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, plan: Plan, images: ImageSet, steps_per_epoch: int) -> None:
        self._fabric, self._plan, self._images, self._steps_per_epoch = fabric, plan, images, steps_per_epoch
        if plan.sync_batchnorm and processes.size() > 1:
            model = synced(model, fabric.device)
        self.model = model
        self.averaged: AveragedWeights | None = None
        if not isinstance(plan.averaging, NoAveraging):
            self.averaged = AveragedWeights(model, plan.averaging, steps_per_epoch)
        self._outline = copy.deepcopy(model) if plan.shard_weights and processes.size() > 1 else None
        """What a sharded model looks like where it is complete."""
        for one in (model, self.averaged.module) if self.averaged is not None else (model,):
            if self._outline is not None:
                shard(one, fabric.device)
            else:
                place(one, fabric.device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay, foreach=True
        )
        self._module = TrainStep(self.model, plan.method, plan.threat, len(images.classes), plan.label_mass)
        self._step_module = fabric.setup_module(self._module)
        fabric.setup_optimizers(self.optimizer)
        self._finite, self._statistics = Finite(self.model), Statistics(self.model)
        self._learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._resting = at_rest(self.model)
        self.memory = self._new_memory(plan.method)
        self.epoch, self.step, self.trained, self.waited, self.seconds = 0, 0, 0.0, 0.0, 0.0
        self.best: dict[str, Any] = {"epoch": 0, "pgd": -1.0, "one_answer": None}
        self.one_answer: str | None = None
        """What the last validation has said of weights that answer one class for nearly everything."""
        self.alarms: list[dict[str, object]] = []
        self.rollbacks = 0
        self.left_out: list[tuple[int, int]] = []
        """(epoch, step) of the steps that are passed over, because the run went back for them."""
        self.tally = Tally(fabric.device, steps_per_epoch)

    def _new_memory(self, method: Method) -> Memory | None:
        images, plan = self._images, self._plan
        classes = len(images.classes)
        return method.memory(Setup(len(images), classes, images.shape, plan.threat, plan.pad, self._fabric.device))

    @property
    def passed_over(self) -> list[int]:
        """The steps of the present epoch that are left out."""
        return [step for epoch, step in self.left_out if epoch == self.epoch]

    def begin(self) -> None:
        """Puts the model into train mode, without the parts that came in evaluation mode."""
        train_mode(self.model, self._resting)

    def learn(self, batch: Batch) -> None:
        """Makes the present epoch's next step with this batch, or passes over it."""
        plan = self._plan
        if not self.step:
            self._seed()
        if self.step not in self.passed_over:
            self._finite.begin()
            if plan.awp and self.epoch >= plan.awp_warm_up:
                losses = at_perturbed_weights(partial(self._one_pass, batch), self.model, self.memory, plan.awp)
            else:
                losses = self._one_pass(batch, self.memory)
            fine = self._finite.end()
            if plan.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.clip_norm)
            self._set_rate()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.averaged is not None:
                self.averaged.update(losses.stats)
            self.tally.add(self.step, batch, losses, fine)
        self.step += 1

    def _one_pass(self, batch: Batch, memory: Memory | None) -> Losses:
        if self._outline is not None and (statistics := self._statistics.read()) is not None:
            self._statistics.write(processes.as_first(statistics))  # as DDP does before a pass
        clock = Clock(self.epoch, self._plan.epochs, self.step, self._steps_per_epoch)
        losses: Losses = self._step_module(batch, memory, clock)
        total = losses.total if batch.weight == 1 else losses.total * batch.weight
        # A forward pass that the attack shares with the loss would give the gradient of its perturbation once more.
        # (Sharded weights are not those that were used, so that they cannot be named here.)
        self._fabric.backward(total, inputs=self._learned if self._outline is None else None)
        return losses

    def _seed(self) -> None:
        # The processes draw different numbers, and so does the rest of an epoch that others began.
        torch.manual_seed(self._plan.seed * 1_000_003 + self.epoch + (self.step << 32) + (processes.rank() << 52))

    def _set_rate(self) -> None:
        done = self.epoch * self._steps_per_epoch + self.step
        plan, steps = self._plan, self._steps_per_epoch
        momentum = plan.schedule.momentum(done, steps, plan.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.lr * plan.schedule.factor(done, steps, plan.epochs)
            group["momentum"] = plan.momentum if momentum is None else momentum

    def end_epoch(self, validation: dict[str, float] | None) -> dict[str, object]:
        """Goes on to the next epoch; returns the row of metrics of the one that is done."""
        means, bad = self.tally.means(), self.tally.bad_steps()
        terms = {name.removeprefix("terms/"): v for name, v in means.items() if name.startswith("terms/")}
        stats = {name.removeprefix("stats/"): v for name, v in means.items() if name.startswith("stats/")}
        row: dict[str, object] = {
            "epoch": self.epoch + 1,
            "epochs": self._plan.epochs,
            "step": (self.epoch + 1) * self._steps_per_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": sum(terms.values()),
            "terms": terms,
            "per_example": {name: value for name, value in stats.items() if name in terms},
            "stats": {name: value for name, value in stats.items() if name not in terms},
            "train_robust": means["train_robust"],
            "validation": validation,
            "lost_steps": sorted(bad + self.passed_over),
            "images_per_second": len(self._images) / self.trained,
            "waited": self.waited / self.trained,
            "seconds": self.seconds,
        }
        self.epoch, self.step, self.trained, self.waited = self.epoch + 1, 0, 0.0, 0.0
        self.tally = Tally(self._fabric.device, self._steps_per_epoch)
        return row

    def switch(self, level: int) -> str:
        """The guard's remedy takes the place of the method, whose name is returned; at level 0 there was no alarm."""
        if level != self.rollbacks:
            self.rollbacks = level
            self._module.method = remedy(self._plan.method, level) if level else self._plan.method
            self.memory = self._new_memory(self._module.method)
        return type(self._module.method).__name__

    def complete(self) -> tuple[nn.Module, nn.Module | None]:
        """The model, and the average of its weights, such that the first process can call them on its own.

        All processes must ask for them.
        """
        averaged = self.averaged.module if self.averaged is not None else None
        if self._outline is None:
            return self.model, averaged
        device = self._fabric.device
        model = complete(self._outline, self.model, device)
        return model, complete(self._outline, averaged, device) if averaged is not None else None

    def weights(self) -> dict[Checkpoint, dict[str, Tensor]]:
        """What there is to save of the model and of its average; all processes must ask for it."""
        found: dict[Checkpoint, dict[str, Tensor]] = {"last": whole(self.model.state_dict())}
        if self.averaged is not None:
            found["averaged"] = whole(self.averaged.module.state_dict())
        return found

    def warnings(self) -> list[str]:
        """What is wrong with the weights that are kept: they answer one class for nearly everything."""
        found = {"best": self.best["one_answer"], "last": self.one_answer}
        return [f"the {name} weights: {text}" for name, text in found.items() if text is not None]

    def summary(self, status: Literal["finished", "stopped"]) -> dict[str, object]:
        """What result.json says of the training."""
        return {
            "status": status, "epochs": self.epoch, "train_seconds": self.seconds, "best_epoch": self.best["epoch"],
            "best_pgd": self.best["pgd"], "alarms": self.alarms, "warnings": self.warnings(),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, within an epoch or between two: tensors and plain values only.

        All processes must ask for it.
        """
        return {
            "epoch": self.epoch,
            "step": self.step,
            "trained": self.trained,
            "waited": self.waited,
            "seconds": self.seconds,
            "best": self.best,
            "alarms": self.alarms,
            "one_answer": self.one_answer,
            "rollbacks": self.rollbacks,
            "left_out": self.left_out,
            "tally": self.tally.state_dict(),
            "random": processes.every(_random_state(self._fabric.device)),
            "model": whole(self.model.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "averaged": whole(self.averaged.state_dict()) if self.averaged is not None else None,
            "memory": self.memory.state_dict() if self.memory is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # States of regmix 0.1 do not say it.
        state = {"one_answer": None, **state, "best": {"one_answer": None, **state["best"]}}
        for name in ("epoch", "step", "trained", "waited", "seconds", "best", "alarms", "left_out", "one_answer"):
            setattr(self, name, state[name])
        load(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():
            moments.update({name: share(value, parameter) for name, value in moments.items()})
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.switch(state["rollbacks"])
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        self.tally.load_state_dict(state["tally"])
        if len(state["random"]) == processes.size():
            random = state["random"][processes.rank()]
            torch.set_rng_state(random["cpu"].cpu())
            if self._fabric.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"].cpu(), self._fabric.device)
        else:
            self._seed()


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state
