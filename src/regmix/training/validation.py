"""Validation on held-out images: accuracies, the choice of the best weights, and the guard's question."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from regmix.attacks import Attack, Fgsm, Pgd
from regmix.config import Experiment
from regmix.data import ImageSet, batches, pick, spread
from regmix.evaluation import evaluate, one_answer
from regmix.methods.remedies import MAX_ROLLBACKS
from regmix.threats import Threat
from regmix.training.guard import alignment
from regmix.training.progress import Best, Progress
from regmix.training.saving import Saving
from regmix.types import Batch

ALIGNED = 128
"""On how many of the validation images the gradient alignment is measured, drawn evenly from the classes."""
PIXELS = 2**19
"""Of a batch on a GPU, where the training's has fewer: 512 images of 32x32, which need less memory than a step."""


class Validation(NamedTuple):
    """The outcome of a validation."""

    accuracies: dict[str, float]
    """What the row of metrics says under `validation`."""
    best: Best
    """The best weights so far; see `Progress.best`."""
    alarm: str | None
    """The reason for the guard's alarm; None without an alarm."""
    repeated: bool
    """The previous validation raised an alarm, too."""
    one_answer: str | None
    """Warning: the weights predict one class for nearly all images."""


@dataclass(frozen=True)
class Validator:
    """Validates weights at the end of an epoch; `check` is called before every batch and may raise Interrupted."""

    experiment: Experiment
    images: ImageSet
    fabric: Fabric
    saving: Saving
    check: Callable[[], None]

    def judge(self, model: nn.Module, averaged: nn.Module | None, progress: Progress) -> Validation:
        """Measures the weights and their average, keeps them as `best` if they are, and asks the guard.

        PGD accuracy decides; after standard training, whose PGD accuracy is near 0 or chance, clean accuracy. An epoch
        that the guard is going to undo is no candidate.
        """
        accuracies, warning = self._measure(model, signs=True)
        before = progress.validated
        alarm = None
        if self.experiment.method.guarded:
            alarm = self.experiment.guard.alarm(
                [row.validation for row in before if row.validation], accuracies, len(self.images)
            )
        repeated = bool(progress.alarms and before and progress.alarms[-1].epoch == before[-1].epoch)
        by = self.experiment.method.chosen_by
        epoch, best = progress.epoch + 1, progress.best
        candidates = [(model, Best(epoch, accuracies["pgd"], warning, accuracies["clean"], averaged=False))]
        if averaged is not None:
            of_average, average_warning = self._measure(averaged, signs=False)
            accuracies |= {f"averaged_{name}": value for name, value in of_average.items()}
            if self.experiment.best_of == "either":
                facts = Best(epoch, of_average["pgd"], average_warning, of_average["clean"], averaged=True)
                candidates.append((averaged, facts))
        undone = alarm is not None and self.experiment.guard.action == "rollback" and progress.rollbacks < MAX_ROLLBACKS
        for candidate, facts in [] if undone else candidates:
            if getattr(facts, by) > getattr(best, by):
                best = facts
                self.saving.keep({"best": candidate.state_dict()})
        return Validation(accuracies, best, alarm, repeated, warning)

    def _measure(self, model: nn.Module, *, signs: bool) -> tuple[dict[str, float], str | None]:
        threat = self.experiment.threat
        batch_size = self.experiment.part_size
        if self.fabric.device.type == "cuda":  # a small network keeps a GPU busy only with many images at once
            _, height, width = self.images.shape
            batch_size = max(batch_size, PIXELS // (height * width))
        return validate(self.fabric, model, self.images, threat, batch_size, self.check, signs=signs)


def validate(
    fabric: Fabric,
    model: nn.Module,
    images: ImageSet,
    threat: Threat,
    batch_size: int,
    check: Callable[[], None],
    *,
    signs: bool,
) -> tuple[dict[str, float], str | None]:
    """Clean and PGD-10 accuracy, at the precision of the training, by the path that `regmix evaluate` uses.

    Args:
        check: called before every batch.
        signs: also measure what the guard needs: FGSM accuracy, and gradient alignment on `ALIGNED` images.

    Returns the values by name, and a warning if the model predicts one class for nearly all images. The global random
    state stays as it was.
    """
    dtype = next(model.parameters()).dtype
    attacks: dict[str, Attack] = {"pgd": Pgd(10), "fgsm": Fgsm()} if signs else {"pgd": Pgd(10)}
    with _beside_training(fabric), warnings.catch_warnings():
        # A network that is certain of an image has no gradient there. Only an evaluation judges masking.
        warnings.filterwarnings("ignore", message=".* were not attacked")
        outcomes = evaluate(model, _stream(images, batch_size, fabric.device, dtype, check), threat, attacks)
        values = {name: outcomes.accuracy(name) for name in outcomes.names}
        if signs:
            check()
            # Of all classes, and as many whatever the batch size: a folder's images are sorted by class.
            few = pick(images, spread(images.labels, ALIGNED), fabric.device)
            values["alignment"] = alignment(model, few._replace(x=few.x.to(dtype)), threat, batch_size)
    assert outcomes.predicted is not None
    answer = one_answer(outcomes.predicted, outcomes.labels, images.classes)
    return values, answer.text("the validation images") if answer is not None else None


def clean_accuracy(fabric: Fabric, model: nn.Module, images: ImageSet, threat: Threat, batch_size: int) -> float:
    """The accuracy without an attack, measured as `validate` does."""
    stream = _stream(images, batch_size, fabric.device, next(model.parameters()).dtype)
    with _beside_training(fabric):
        return evaluate(model, stream, threat, {}).accuracy("clean")


@contextmanager
def _beside_training(fabric: Fabric) -> Iterator[None]:
    """At the precision of the training, with the global random state as it was afterwards."""
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), fabric.autocast():
        yield


def _stream(
    images: ImageSet,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Batch]:
    """The batches of the images in this type; `check` is called before each."""
    for batch in batches(images, batch_size, device):
        check()
        yield batch._replace(x=batch.x.to(dtype))
