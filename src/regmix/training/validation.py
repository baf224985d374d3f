"""How good the weights are on the images held out of training, and which are the best."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from regmix.attacks import Attack, Fgsm, Pgd
from regmix.data import ImageSet, batches
from regmix.evaluation import evaluate, one_answer
from regmix.runs import Run
from regmix.threats import Threat
from regmix.training.guard import alignment
from regmix.training.plan import Plan
from regmix.training.trainee import Trainee
from regmix.types import Batch


class Verdict(NamedTuple):
    """What a validation has found."""

    validation: dict[str, float]
    best: dict[str, Any]
    """The epoch of the best weights so far, and their PGD accuracy."""
    alarm: str | None
    """The guard's reason."""
    known: bool
    """The validation before raised it, too."""
    one_answer: str | None
    """What to say of weights that answer one class for nearly everything."""


def compete(
    fabric: Fabric,
    trainee: Trainee,
    models: tuple[nn.Module, nn.Module | None],
    plan: Plan,
    images: ImageSet,
    run: Run,
    check: Callable[[], None],
) -> Verdict:
    """Validates at the end of an epoch, lets the weights compete for `best`, and asks the guard; see `validate`.

    models: the trainee's, complete.
    """
    model, averaged = models
    look = partial(validate, fabric, images=images, threat=plan.threat, batch_size=plan.batch_size, check=check)
    (validation, one), before = look(model), [row for row in run.metrics() if row["validation"]]
    reason = None
    if plan.method.guarded:
        reason = plan.guard.alarm([row["validation"] for row in before], validation, len(images))
    known = bool(trainee.alarms and before and trainee.alarms[-1]["epoch"] == before[-1]["epoch"])
    contender, pgd, best, its = model, validation["pgd"], trainee.best, one
    if averaged is not None:
        more, averaged_one = look(averaged, signs=False)
        validation |= {f"averaged_{name}": value for name, value in more.items()}
        if plan.best_of == "either" and more["pgd"] > pgd:
            contender, pgd, its = averaged, more["pgd"], averaged_one
    if pgd > best["pgd"]:
        best = {"epoch": trainee.epoch + 1, "pgd": pgd, "one_answer": its}
        run.save_weights("best", contender.state_dict())
    return Verdict(validation, best, reason, known, one)


def validate(
    fabric: Fabric,
    model: nn.Module,
    images: ImageSet,
    threat: Threat,
    batch_size: int,
    check: Callable[[], None],
    signs: bool = True,
) -> tuple[dict[str, float], str | None]:
    """Clean and PGD-10 accuracy, at the precision of the training; with `signs` FGSM accuracy and gradient alignment.

    And what there is to say of a model that answers one class for nearly everything.
    `check` is called before every batch. The global random state stays as it was.
    """

    dtype = next(model.parameters()).dtype

    def stream() -> Iterator[Batch]:
        for batch in batches(images, batch_size, fabric.device):
            check()
            yield batch._replace(x=batch.x.to(dtype))

    attacks: dict[str, Attack] = {"pgd": Pgd(10), "fgsm": Fgsm()} if signs else {"pgd": Pgd(10)}
    cuda = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), fabric.autocast(), warnings.catch_warnings():
        # A network that is sure of an image has no gradient there; the verdict on masking is for the evaluation.
        warnings.filterwarnings("ignore", message=".* were not attacked")
        outcomes = evaluate(model, stream(), threat, attacks)
        results = {name: outcomes.accuracy(name) for name in outcomes.names}
        if signs:
            results["alignment"] = alignment(model, next(stream()), threat)
    assert outcomes.predicted is not None
    same = one_answer(outcomes.predicted, outcomes.labels, images.classes)
    return results, same.text("the validation images") if same is not None else None
