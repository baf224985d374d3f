"""The training loop, to be read from top to bottom."""

import time
from typing import Any, Literal

from lightning_fabric import Fabric
from torch import nn

from regmix.config.guard import Action
from regmix.data import ImageSet, Loader
from regmix.methods.remedies import REMEDIES
from regmix.runs import Run
from regmix.runtime import processes
from regmix.training.finite import LOOK, check_steps, check_weights, told
from regmix.training.interruption import Interruption
from regmix.training.plan import Display, Plan
from regmix.training.trainee import Trainee
from regmix.training.validation import Verdict, compete
from regmix.types import Interrupted, UserError


def train(
    fabric: Fabric,
    model: nn.Module,
    plan: Plan,
    train_set: ImageSet,
    validation_set: ImageSet,
    run: Run,
    display: Display,
) -> dict[str, object]:
    """Trains a model into a run directory, from its last saved state if it has one; returns a summary.

    Everything random in an epoch is drawn from (seed, epoch), so that a resumed run repeats an uninterrupted one.

    Raises:
        Interrupted: SIGTERM or Ctrl-C has come; what was done until then is saved.
        UserError: too many steps had a gradient that is not finite, or the weights are not.
    """
    loader = Loader(
        train_set, plan.batch_size, fabric.device, pad=plan.pad, flip=plan.flip, seed=plan.seed,
        replays=plan.method.replays, rank=processes.rank(), size=processes.size(),
    )  # fmt: skip
    trainee = Trainee(fabric, model, plan, train_set, len(loader))
    interruption = Interruption()

    def rest_of_epoch() -> list[int]:
        """Makes the steps that are left; returns those that the run has to go back for."""
        trainee.begin()
        began = time.perf_counter()
        for batch in loader.epoch(trainee.epoch, trainee.step):
            trainee.waited += time.perf_counter() - began
            interruption.check()
            trainee.learn(batch)
            display.batch(len(batch.x))
            began, spent = time.perf_counter(), time.perf_counter() - began
            trainee.trained, trainee.seconds = trainee.trained + spent, trainee.seconds + spent
            if trainee.step % LOOK == 0 or trainee.step == len(loader):
                bad = check_steps(trainee.tally, trainee.passed_over, plan.nonfinite, trainee.epoch, len(loader))
                if bad:
                    return bad
        check_weights(trainee.model, trainee.epoch)
        return []

    def judge() -> Verdict:
        """Validates and lets the weights compete for `best`, in the first process; the others wait to hear of it."""
        began = time.perf_counter()
        models = trainee.complete()
        verdict: Verdict | int = 0
        if processes.rank() == 0:
            try:
                verdict = compete(fabric, trainee, models, plan, validation_set, run, interruption.check_alone)
            except Interrupted as interrupted:
                verdict = interrupted.signal
        verdict = processes.from_first(verdict)
        if isinstance(verdict, int):
            raise Interrupted(verdict)
        trainee.best = verdict.best
        if verdict.one_answer is not None and trainee.one_answer is None:
            display.warn(f"epoch {trainee.epoch + 1}: {verdict.one_answer}")
        trainee.one_answer = verdict.one_answer
        trainee.seconds += time.perf_counter() - began
        return verdict

    def heed(reason: str, known: bool) -> Action:
        """Tells of an alarm where it begins, and does what the plan says."""
        if not known:
            display.alarm(f"epoch {trainee.epoch + 1}: {reason}")
        exhausted = plan.guard.action == "rollback" and trainee.rollbacks == REMEDIES
        action: Action = "continue" if exhausted else plan.guard.action
        trainee.alarms.append({"epoch": trainee.epoch + 1, "reason": reason, "action": action})
        run.update_result({"alarms": trainee.alarms})
        if action == "rollback":
            alarms, seconds, level = trainee.alarms, trainee.seconds, trainee.rollbacks + 1
            restore(run.load_healthy_state())
            trainee.alarms, trainee.seconds = alarms, seconds
            remedy = trainee.switch(level)
            display.alarm(f"back to epoch {trainee.epoch}, and on with {remedy}")
        return action

    def go_back_for(bad: list[int]) -> None:
        """Returns to the last saved state, from which the run goes on without these steps."""
        found, steps = told(bad, trainee.tally, trainee.epoch), [(trainee.epoch, step) for step in bad]
        seconds = trainee.seconds
        state = run.load_state(display.warn)
        assert state is not None, "a run that may go back begins with a saved state"
        restore(state)
        trainee.left_out, trainee.seconds = trainee.left_out + steps, seconds
        display.warn(f"{found}; back to epoch {trainee.epoch}, and on without")

    def save(*, healthy: bool) -> None:
        run.save_state({"rows": run.metrics(), **trainee.state_dict()}, healthy=healthy)

    def restore(state: dict[str, Any]) -> None:
        try:
            trainee.load_state_dict(state)
            run.write_metrics(state["rows"])
        except (KeyError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            raise UserError(
                f"{run.path} was saved with another config.json or regmix, and cannot be continued ({why})"
            ) from None

    def finish(status: Literal["finished", "stopped"]) -> dict[str, object]:
        for warning in trainee.warnings():
            display.warn(warning)
        return trainee.summary(status)

    def save_weights() -> None:
        for checkpoint, state in trainee.weights().items():
            run.save_weights(checkpoint, state)

    if (state := run.load_state(display.warn)) is not None:
        restore(state)
        if not trainee.step:
            save_weights()  # in case they are what was damaged
    else:
        run.write_metrics([])
        if plan.nonfinite == "rollback":
            save(healthy=False)
    done = trainee.epoch * len(train_set) + trainee.step * plan.batch_size
    display.start("training", plan.epochs * len(train_set), done)
    with interruption.noted():
        try:
            while trainee.epoch < plan.epochs:
                if bad := rest_of_epoch():
                    go_back_for(bad)
                    continue
                verdict = None
                if (trainee.epoch + 1) % plan.validate_every == 0 or trainee.epoch + 1 == plan.epochs:
                    verdict = judge()
                if verdict is not None and verdict.alarm is not None:
                    action = heed(verdict.alarm, verdict.known)
                    if action == "stop":
                        return finish("stopped")
                    if action == "rollback":
                        continue
                if bad := trainee.tally.bad_steps():
                    display.warn(f"{told(bad, trainee.tally, trainee.epoch)}; nothing was learned from it")
                row = trainee.end_epoch(verdict.validation if verdict is not None else None)
                run.append_metrics(row)
                save_weights()
                well = verdict is not None and verdict.alarm is None
                save(healthy=plan.guard.action == "rollback" and well)
                display.epoch(row)
        except Interrupted as interrupted:
            if plan.nonfinite == "rollback" and (bad := trainee.tally.bad_steps()):
                go_back_for(bad)  # rather than save what they have left
            save(healthy=False)
            interrupted.saved = (
                f"saved in epoch {trainee.epoch + 1} after {trainee.step} of {len(loader)} steps; "
                f"continue with: regmix train --resume {run.path}"
            )
            raise
    return finish("finished")
