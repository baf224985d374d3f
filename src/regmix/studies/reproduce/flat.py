"""How flat the loss of every run of an experiment is: measured once, kept in OUT/flatness."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch

from regmix.data import pick
from regmix.evaluation import Flatness, flatness, image_planes, weight_plane
from regmix.evaluation.subject import EvaluationImages, load_checkpoint, package_digest
from regmix.runs import Run
from regmix.runs.files import read_record, write_record
from regmix.runtime import devices
from regmix.runtime.files import digest
from regmix.studies.reproduce.claims import Measure, Study
from regmix.studies.reproduce.runner import Runner
from regmix.studies.trainings import Planned
from regmix.types import UserError

POINTS = 11
"""Of the pictures, per direction."""


@dataclass(frozen=True)
class Measured:
    """OUT/flatness/RUN.json."""

    weights: str
    """Digest of the best weights."""
    images: int
    eps: float
    numbers: dict[str, list[float]]
    """By measure: a value per image, or one for the weights."""
    not_converged: int
    """Eigenvalues that are lower bounds."""
    steps: list[float]
    around_images: list[list[float]]
    around_weights: list[list[float]]
    split: str = ""
    """Digest of the test split that the images are from; empty in a record of an older version."""
    package: str = ""
    """State of the code of regmix that measured it; empty in a record of an older version."""


Flatnesses = dict[str, list[Measured]]
"""By arm, in the order of the seeds."""


def measure(runner: Runner, study: Study, device: devices.Device, say: Callable[[str], None]) -> Flatnesses:
    """The flatness of the runs of an experiment about it; what is measured already is read."""
    arms = [arm.name for arm in study.arms] if study.measures == "flatness" else []
    return {arm: [_flatness(runner, arm, run, device, say) for run in runner.runs[arm]] for arm in arms}


def _flatness(
    runner: Runner, arm: str, run: Planned, device: devices.Device, say: Callable[[str], None]
) -> Measured:  # fmt: skip
    """The flatness of a run, measured unless that was done: of these weights and images, by this state of the code."""
    file = runner.out / "flatness" / f"{run.path.name}.json"
    known = read_record(file, Measured) if file.exists() else None
    test, there = runner.images(arm, runner.scale.flat), Run.open(run.path).weights("best").is_file()
    if known is not None:
        asked = len(test.images), run.experiment.threat.eps, test.split.digest
        same = known.weights in _best(Run.open(run.path))
        same = same and (known.images, known.eps, known.split or asked[2]) == asked
        if same and (known.package == package_digest() or not there):
            return known
    if not there:
        raise UserError(
            f"the flatness of {run.path} was not measured, and its weights were removed; remove the folder, and give "
            "the command again"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    known = _measured(run, test, device)
    write_record(file, known)
    say(f"measured the flatness of {run.path.name}")
    return known


def _best(run: Run) -> set[str]:
    """Digests of the best weights: of the file, or where it was removed, of those that were evaluated last."""
    if (weights := run.weights("best")).is_file():
        return {digest(weights)}
    held = [each.evaluation.subject for each in run.evaluations() if not each.outdated]
    return {subject.weights for subject in held if subject.checkpoint == "best"}


def _measured(run: Planned, chosen: EvaluationImages, device: devices.Device) -> Measured:
    test = chosen.images
    experiment, place = run.experiment, devices.start(device, "32", patient=True).device
    loaded = load_checkpoint(experiment, Run.open(run.path), "best", test, place)
    batch, model, threat = pick(test, torch.arange(len(test)), place), loaded.model, experiment.threat
    found: Flatness = flatness(model, batch.x, batch.y, threat)
    around_images = image_planes(model, batch.x, batch.y, threat, points=POINTS)
    around_weights = weight_plane(model, batch.x, batch.y, points=POINTS)
    numbers = {}
    for name in get_args(Measure):
        value = getattr(found, name)
        numbers[name] = value.tolist() if isinstance(value, torch.Tensor) else [float(value)]
    return Measured(
        loaded.weights, len(test), threat.eps, numbers,
        int((~found.input_converged).sum()) + (not found.weight_converged),
        around_images.steps.tolist(), around_images.loss.mean(0).tolist(), around_weights.loss.tolist(),
        chosen.split.digest, package_digest(),
    )  # fmt: skip
