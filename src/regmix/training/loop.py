"""The training loop, to be read from top to bottom."""

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from torch import nn

from regmix.attacks import Attack, Fgsm, Pgd
from regmix.data import ImageSet, Loader, batches
from regmix.evaluation import evaluate
from regmix.methods.base import Method
from regmix.priors import Memory
from regmix.runs import Run
from regmix.threats import Threat
from regmix.training.averaging import AveragedWeights, Averaging
from regmix.training.awp import at_perturbed_weights
from regmix.training.guard import REMEDIES, Guard, alignment, remedy
from regmix.training.schedule import Schedule
from regmix.training.step import TrainStep
from regmix.training.tally import Tally
from regmix.types import Batch, Losses, UserError


@dataclass(frozen=True)
class Plan:
    """The numbers of a training: see Experiment, whose fields these are."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    label_mass: float
    pad: int
    flip: bool
    clip_norm: float | None
    awp: float
    awp_warm_up: int
    validate_every: int
    best_of: Literal["weights", "either"]
    guard: Guard
    seed: int


class Display(Protocol):
    """Shows the training to whoever waits for it."""

    def start(self, description: str, total: int, done: int = 0) -> None: ...
    def batch(self, examples: int) -> None: ...
    def epoch(self, row: dict[str, object]) -> None: ...
    def alarm(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


def train(
    fabric: Fabric,
    model: nn.Module,
    method: Method,
    threat: Threat,
    schedule: Schedule,
    averaging: Averaging | None,
    plan: Plan,
    train_set: ImageSet,
    validation_set: ImageSet,
    run: Run,
    display: Display,
) -> dict[str, object]:
    """Trains a model into a run directory, from its last saved epoch if it has one; returns a summary.

    Everything random in an epoch is drawn from (seed, epoch), so that a resumed run repeats an uninterrupted one.
    """
    device = fabric.device
    loader = Loader(
        train_set, plan.batch_size, device, pad=plan.pad, flip=plan.flip, seed=plan.seed, replays=method.replays
    )
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(), plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay, foreach=True
    )
    module = TrainStep(model, method, threat, len(train_set.classes), plan.label_mass)
    step_module = fabric.setup_module(module)
    fabric.setup_optimizers(optimizer)
    averaged = AveragedWeights(model, averaging, len(loader)) if averaging is not None else None
    shape = (train_set.images.shape[1], train_set.images.shape[2], train_set.images.shape[3])
    memory = method.memory(len(train_set), shape, plan.pad, threat, device)
    epoch, best, seconds, alarms = 0, {"epoch": 0, "pgd": -1.0}, 0.0, list[dict[str, object]]()
    rollbacks, told = 0, False

    def restore(state: dict[str, Any]) -> None:
        nonlocal epoch, best, seconds, alarms
        epoch, best, seconds, alarms = state["epoch"], state["best"], state["seconds"], state["alarms"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
        switch(state["rollbacks"])
        if memory is not None:
            memory.load_state_dict(state["memory"])

    def switch(level: int) -> None:
        """The guard's remedy takes the place of the method; at level 0 there was no alarm."""
        nonlocal rollbacks, memory
        if level != rollbacks:
            rollbacks = level
            module.method = remedy(method, level) if level else method
            memory = module.method.memory(len(train_set), shape, plan.pad, threat, device)

    def summary(status: str, epochs: int) -> dict[str, object]:
        best_epoch = best["epoch"]
        return {
            "status": status, "epochs": epochs, "train_seconds": seconds, "best_epoch": best_epoch, "alarms": alarms,
        }  # fmt: skip

    def one_pass(batch: Batch, memory: Memory | None) -> Losses:
        losses: Losses = step_module(batch, memory)
        fabric.backward(losses.total)
        return losses

    if (state := run.load_state(device, display.warn)) is not None:
        restore(state)
    run.keep_metrics(epoch)
    display.start("training", plan.epochs * len(train_set), epoch * len(train_set))

    while epoch < plan.epochs:
        began = time.perf_counter()
        torch.manual_seed(plan.seed * 1_000_003 + epoch)
        model.train()
        if memory is not None:
            memory.epoch, memory.epochs = epoch, plan.epochs
        tally = Tally(device)
        for number, batch in enumerate(loader.epoch(epoch)):
            step = epoch * len(loader) + number
            if memory is not None:
                memory.step = number
            lr = plan.lr * schedule.factor(step, len(loader), plan.epochs)
            momentum = schedule.momentum(step, len(loader), plan.epochs)
            for group in optimizer.param_groups:
                group["lr"] = lr
                group["momentum"] = plan.momentum if momentum is None else momentum
            if plan.awp and epoch >= plan.awp_warm_up:
                losses = at_perturbed_weights(partial(one_pass, batch), model, memory, plan.awp)
            else:
                losses = one_pass(batch, memory)
            if plan.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if averaged is not None:
                averaged.update(model, losses.stats)
            tally.add(batch, losses)
            display.batch(len(batch.x))
        means = tally.means()
        trained = time.perf_counter() - began
        terms = {name.removeprefix("terms/"): v for name, v in means.items() if name.startswith("terms/")}
        stats = {name.removeprefix("stats/"): v for name, v in means.items() if name.startswith("stats/")}
        if not all(math.isfinite(value) for value in terms.values()):
            bad = ", ".join(name for name, value in terms.items() if not math.isfinite(value))
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1} ({bad}); the run stops before it saves such weights: "
                "try a lower --lr, or --precision 32"
            )
        epoch += 1

        validation, reason = None, None
        if epoch % plan.validate_every == 0 or epoch == plan.epochs:
            validation = _validate(fabric, model, validation_set, threat, plan.batch_size)
            history = [row["validation"] for row in run.metrics() if row["validation"]]
            reason = plan.guard.alarm(history, validation, len(validation_set))
            contender, pgd = model, validation["pgd"]
            if averaged is not None:
                more = _validate(fabric, averaged.module, validation_set, threat, plan.batch_size, signs=False)
                validation |= {f"averaged_{name}": value for name, value in more.items()}
                if plan.best_of == "either" and more["pgd"] > pgd:
                    contender, pgd = averaged.module, more["pgd"]
            if pgd > best["pgd"]:
                best = {"epoch": epoch, "pgd": pgd}
                run.save_weights("best", contender.state_dict())
        seconds += time.perf_counter() - began
        if reason is not None and not told:
            display.alarm(f"epoch {epoch}: {reason}")
        if validation is not None:
            told = reason is not None
        if reason is not None:
            exhausted = plan.guard.action == "rollback" and rollbacks == REMEDIES
            action = "continue" if exhausted else plan.guard.action
            alarms.append({"epoch": epoch, "reason": reason, "action": action})
            run.update_result({"alarms": alarms})
            if action == "stop":
                return summary("stopped", epoch - 1)
            if action == "rollback":
                seen, spent, level = alarms, seconds, rollbacks + 1
                restore(run.load_healthy_state(device))
                switch(level)
                alarms, seconds, told = seen, spent, False
                run.keep_metrics(epoch)
                display.alarm(f"back to epoch {epoch}, and on with {type(module.method).__name__}")
                continue
        row: dict[str, object] = {
            "epoch": epoch,
            "epochs": plan.epochs,
            "step": step + 1,
            "lr": lr,
            "loss": sum(terms.values()),
            "terms": terms,
            "per_example": {name: value for name, value in stats.items() if name in terms},
            "stats": {name: value for name, value in stats.items() if name not in terms},
            "train_robust": means["train_robust"],
            "validation": validation,
            "images_per_second": len(train_set) / trained,
            "seconds": seconds,
        }
        run.append_metrics(row)
        run.save_weights("last", model.state_dict())
        if averaged is not None:
            run.save_weights("averaged", averaged.module.state_dict())
        run.save_state(
            {
                "epoch": epoch,
                "best": best,
                "seconds": seconds,
                "alarms": alarms,
                "rollbacks": rollbacks,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "averaged": averaged.state_dict() if averaged is not None else None,
                "memory": memory.state_dict() if memory is not None else None,
            },
            healthy=plan.guard.action == "rollback" and validation is not None and reason is None,
        )
        display.epoch(row)
    return summary("finished", epoch)


def _validate(
    fabric: Fabric, model: nn.Module, images: ImageSet, threat: Threat, batch_size: int, signs: bool = True
) -> dict[str, float]:
    """Clean and PGD-10 accuracy on the validation split, at the precision of the training, and the guard's signs."""
    attacks: dict[str, Attack] = {"pgd": Pgd(10), "fgsm": Fgsm()} if signs else {"pgd": Pgd(10)}
    with fabric.autocast():
        outcomes = evaluate(model, batches(images, batch_size, fabric.device), threat, attacks)
        results = {name: outcomes.accuracy(name) for name in outcomes.names}
        if signs:
            results["alignment"] = alignment(model, next(batches(images, batch_size, fabric.device)), threat)
    return results
