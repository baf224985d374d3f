"""The training loop, and the session that it belongs to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from regmix.config import Action, Experiment, to_json
from regmix.data import Loader
from regmix.methods.remedies import MAX_ROLLBACKS
from regmix.runs import Run
from regmix.runs.records import Alarm, Result
from regmix.runs.settings import SETTINGS
from regmix.runtime import processes
from regmix.training.display import Display
from regmix.training.finite import CHECK_EVERY, check_steps, check_weights, describe
from regmix.training.interruption import Interruption
from regmix.training.prepare import Prepared
from regmix.training.progress import Best
from regmix.training.saving import Saving
from regmix.training.trainee import Trainee
from regmix.training.validation import Validation, Validator
from regmix.types import Interrupted, UserError


@dataclass
class Session:
    """Trains an experiment into a run directory, from its last saved state if it has one.

    Everything random in an epoch is drawn from (seed, epoch), so that a resumed run repeats an uninterrupted one. All
    processes run the same session; rank 0 alone writes and validates.
    """

    experiment: Experiment
    prepared: Prepared
    run: Run
    display: Display

    def train(self) -> Result:
        """Trains until the last epoch, or until the guard stops the run; returns the record for result.json.

        Raises:
            Interrupted: SIGTERM or Ctrl-C arrived; the work done until then is saved.
            UserError: too many steps had a gradient that is not finite, or the weights are not finite.
        """
        self.begin_or_resume()
        with self.interruption.noted(), self.saving_when_interrupted():
            while self.progress.epoch < self.experiment.epochs:
                if lost := self.train_epoch():
                    self.go_back_for(lost)
                    continue
                validation = self.validate() if self.is_validated() else None
                if validation is not None and validation.alarm is not None:
                    action = self.react(validation.alarm, validation.repeated)
                    if action == "stop":
                        return self.finish("stopped")
                    if action == "rollback":
                        continue
                self.end_epoch(validation)
        return self.finish("finished")

    def __post_init__(self) -> None:
        fabric, model, train_set, validation_set, _ = self.prepared
        self.interruption = Interruption()
        self.loader = Loader(
            train_set, self.experiment.batch_size, fabric.device, pad=self.experiment.pad, flip=self.experiment.flip,
            augmentations=self.experiment.augmentations, balance=self.experiment.balance, seed=self.experiment.seed,
            rank=processes.rank(), size=processes.size(),
        )  # fmt: skip
        self.trainee = Trainee(fabric, model, self.experiment, train_set, len(self.loader), self.display.note)
        self.progress = self.trainee.progress
        self.saving = Saving(self.run, to_json(self.experiment))
        self.validator = Validator(
            self.experiment, validation_set, fabric, self.saving, self.interruption.check_this_process
        )

    def begin_or_resume(self) -> None:
        """Restores the last saved state, if there is one, and tells the display where the training begins."""
        if (state := self.run.load_state(self.display.warn)) is not None:
            self.restore(state)
            if not self.progress.step:
                self.saving.write(self.trainee.weights(), None)  # their files may be what was damaged
            self.tell_what_is_left()
        else:
            self.run.write_metrics([])
            if self.experiment.nonfinite == "rollback":
                self.saving.write({}, self.state())
        images = len(self.prepared.train_set)
        done = self.progress.epoch * images + self.progress.step * self.experiment.batch_size
        self.display.start("training", self.experiment.epochs * images, done)

    def tell_what_is_left(self) -> None:
        """Says if a resumed run has nothing left to train, or has lost its best weights."""
        progress, path = self.progress, self.run.path
        if progress.epoch >= self.experiment.epochs:
            self.display.note(
                f"all {progress.epoch} epochs are trained, and nothing is left to do; to train longer: "
                f"{self.experiment.resume_command(path)} --epochs {2 * progress.epoch}"
            )
        if progress.best.epoch and "best" not in self.run.checkpoints():
            later = progress.epoch < self.experiment.epochs
            self.display.warn(
                f"{self.run.weights('best')} was removed; the weights of epoch {progress.best.epoch} are lost"
                + ("; the best of the epochs that are left takes their place" if later else "; put the file back")
            )
            if later:
                progress.best = Best()

    def train_epoch(self) -> list[int]:
        """Makes the remaining steps of the epoch; returns the lost steps for which the run has to go back."""
        progress = self.progress
        self.trainee.begin()
        self.loader.replays = self.trainee.method.replays  # a remedy of free_at replays nothing
        began = time.perf_counter()
        for batch in self.loader.epoch(progress.epoch, progress.step):
            progress.waited += time.perf_counter() - began
            self.interruption.check()
            self.trainee.learn(batch)
            self.display.batch(len(batch.x))
            now = time.perf_counter()
            progress.trained, progress.seconds = progress.trained + now - began, progress.seconds + now - began
            began = now
            if progress.step % CHECK_EVERY == 0 or progress.step == len(self.loader):
                lost = check_steps(
                    self.trainee.tally, progress.skipped, self.experiment.nonfinite, progress.epoch, len(self.loader)
                )
                if lost:
                    return lost
        check_weights(self.trainee.model, progress.epoch)
        return []

    def go_back_for(self, lost: list[int]) -> None:
        """Returns to the last saved state, and leaves these steps of the current epoch out from now on."""
        progress = self.progress
        reason = describe(lost, self.trainee.tally, progress.epoch)
        steps, seconds = [(progress.epoch, step) for step in lost], progress.seconds
        state = self.run.load_state(self.display.warn)
        assert state is not None, "a run that may go back begins with a saved state"
        self.restore(state)
        progress.left_out, progress.seconds = progress.left_out + steps, seconds
        without = "this step" if len(lost) == 1 else "these steps"
        self.display.warn(f"{reason}; back to epoch {progress.epoch}; training continues without {without}")

    def is_validated(self) -> bool:
        """Whether the current epoch ends with a validation."""
        number = self.progress.epoch + 1
        return number % self.experiment.validate_every == 0 or number == self.experiment.epochs

    def validate(self) -> Validation:
        """Validates the weights on rank 0, while the other processes wait for the validation."""
        began = time.perf_counter()
        models = self.trainee.complete()
        validation: Validation | int = 0
        if processes.rank() == 0:
            try:
                validation = self.validator.judge(*models, self.progress)
            except Interrupted as interrupted:
                validation = interrupted.signal
        validation = processes.from_first(validation)
        if isinstance(validation, int):
            raise Interrupted(validation)
        progress = self.progress
        if validation.one_answer is not None and progress.one_answer is None:
            self.display.warn(f"epoch {progress.epoch + 1}: {validation.one_answer}")
        progress.best, progress.one_answer = validation.best, validation.one_answer
        progress.seconds += time.perf_counter() - began
        return validation

    def react(self, reason: str, repeated: bool) -> Action:
        """Reports and records an alarm, and rolls back if asked; returns the action taken."""
        progress, action = self.progress, self.experiment.guard.action
        if not repeated:
            self.display.alarm(f"epoch {progress.epoch + 1}: {reason}")
        if action == "rollback" and progress.rollbacks == MAX_ROLLBACKS:
            action = "continue"
        progress.alarms.append(Alarm(progress.epoch + 1, reason, action))
        self.run.save_result(replace(self.run.result(), alarms=progress.alarms))
        if action == "rollback":
            alarms, seconds, level = progress.alarms, progress.seconds, progress.rollbacks + 1
            self.restore(self.run.load_healthy_state())
            progress.alarms, progress.seconds = alarms, seconds
            remedy = self.trainee.switch(level)
            self.display.alarm(f"back to epoch {progress.epoch}; training continues with {remedy}")
        return action

    def end_epoch(self, validation: Validation | None) -> None:
        """Records and saves the epoch."""
        if lost := self.trainee.tally.bad_steps():
            reason = describe(lost, self.trainee.tally, self.progress.epoch)
            self.display.warn(f"{reason}; nothing was learned from it")
        row = self.trainee.end_epoch(validation.accuracies if validation is not None else None)
        self.saving.add(row)
        self.save_epoch(without_alarm=validation is not None and validation.alarm is None)
        self.display.epoch(row)

    def save_epoch(self, *, without_alarm: bool) -> None:
        """Writes the epoch, or keeps it for later; a run that may go back to it, and the last epoch, are written."""
        weights, state = self.trainee.weights(), self.state()  # all processes must ask for them
        goes_back = self.experiment.guard.action == "rollback"
        last = self.progress.epoch == self.experiment.epochs
        if goes_back or self.experiment.nonfinite == "rollback" or last or self.saving.is_due():
            self.saving.write(weights, state, healthy=goes_back and without_alarm)
        else:
            self.saving.keep(weights, state)

    def finish(self, status: Literal["finished", "stopped"]) -> Result:
        """Repeats the warnings about the saved weights; returns the record for result.json."""
        self.saving.flush()
        for warning in self.progress.warnings():
            self.display.warn(warning)
        return self.progress.summary(status, self.run.result())

    @contextmanager
    def saving_when_interrupted(self) -> Iterator[None]:
        """Saves the state when Interrupted leaves the block, and adds to it how to continue.

        Where another error ends the training, the last epoch is saved.
        """
        try:
            yield
        except Interrupted as interrupted:
            if self.experiment.nonfinite == "rollback" and (lost := self.trainee.tally.bad_steps()):
                self.go_back_for(lost)  # weights that lost steps have changed are not saved
            self.saving.write({}, self.state())
            interrupted.saved = (
                f"saved in epoch {self.progress.epoch + 1} after {self.progress.step} of {len(self.loader)} steps; "
                f"continue with: regmix train --resume {self.run.path}"
            )
            raise
        except Exception:
            self.saving.flush()
            raise

    def state(self) -> dict[str, Any]:
        """What resuming needs; all processes must ask for it."""
        return {**self.trainee.state_dict(), SETTINGS: to_json(self.experiment)}

    def restore(self, state: dict[str, Any]) -> None:
        """Returns to a saved state, and shortens metrics.jsonl to its rows."""
        self.saving.forget()
        try:
            self.trainee.load_state_dict(state, self.run.path)
        except (KeyError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            raise UserError(
                f"{self.run.path} was saved with another config.json or regmix, and cannot be continued ({why})"
            ) from None
        self.run.write_metrics(self.progress.rows)
