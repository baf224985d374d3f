"""What an evaluation is about: images of the test split, and the model of a checkpoint with what identifies both."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

import regmix
from regmix.config import Experiment, build_model
from regmix.data import DataConfig, Folder, How, ImageSet, class_changes, draw, fingerprint, learned_from, load, pick
from regmix.evaluation.questions import Questions
from regmix.models import Answers, load_weights
from regmix.runs import Checkpoint, Run
from regmix.runs.records import Subject
from regmix.runtime.files import digest
from regmix.runtime.layout import settle
from regmix.types import Fingerprint, Sample, UserError

GLANCE = 1 << 16
"""Bytes of a file of corruptions at either end by which it is recognised."""


@dataclass(frozen=True, eq=False)
class EvaluationImages:
    """The images of the test split that an evaluation uses."""

    images: ImageSet
    index: Tensor
    """Their positions in the split, int64 [N]."""
    sample: Sample
    split: Fingerprint
    """Of the whole split."""
    elsewhere: str = ""
    """Where the images are, if they are not the test split that the run's settings name; empty: they are."""

    def only(self, rows: Tensor, sample: Sample) -> "EvaluationImages":
        """The images at these positions, which are a sample of the split."""
        return replace(self, images=self.images.subset(rows), index=self.index[rows], sample=sample)


def choose_images(data: DataConfig, count: int | None, how: How = "stratified", seed: int = 0) -> EvaluationImages:
    """A sample of the test split, see `draw`; `count` None takes all.

    Raises:
        UserError: as `load`, and for more images than there are or less than one.
    """
    test = load(data, "test")
    if count is not None and not 1 <= count <= len(test):
        raise UserError(f"--examples {count}: the test split has {len(test)} images; ask for 1 to {len(test)}")
    sample, positions = draw(test.labels, count, how, seed)
    return EvaluationImages(
        test if sample.how == "all" else test.subset(positions), positions, sample, fingerprint(test)
    )


def with_leaks(test: EvaluationImages, run: Run, own: DataConfig, tested: DataConfig) -> EvaluationImages:
    """The test images with notes on those that the run has learned from or was validated on, where that can be seen.

    Args:
        own: the data of the run, where they are now.
        tested: the data that the test images are from.

    Raises:
        UserError: as `learned_from`.
    """
    data, notes = run.data(), list[str]()
    if isinstance(own, Folder) and isinstance(tested, Folder):
        notes += learned_from(tested, own, data.held_out if data else "")
    if not notes and data and data.validation.images and test.split.content == data.validation.content:
        notes.append("the test images are the run's validation images, on which its best weights were chosen")
    return replace(test, images=replace(test.images, notes=(*test.images.notes, *notes)))


def check_images(directory: Run, images: ImageSet) -> None:
    """Raises UserError unless the images have the classes and the shape that the run was made for."""
    known = directory.result()
    if known.classes and (text := class_changes(tuple(known.classes), images.classes)):
        raise UserError(
            f"the test images have other classes than {directory.path} was trained on: {text}; "
            "give images of the run's classes, in folders of the same names"
        )
    if known.shape and tuple(known.shape) != images.shape:
        was, now = ("x".join(map(str, shape)) for shape in (known.shape, images.shape))
        raise UserError(f"the test images are {now} (channels, height, width); {directory.path} was trained on {was}")


@dataclass(frozen=True, eq=False)
class PlacedModel:
    """A model with its weights, on the device and in the layout in which it is evaluated."""

    model: nn.Module
    weights: str
    """Digest of the file of weights."""
    layout: str | None
    """A note for the user if the model does not run in channels_last."""

    @classmethod
    def place(cls, model: nn.Module, weights: str, test: ImageSet, device: torch.device) -> "PlacedModel":
        """Moves a model to the device and finds the layout in which it runs."""
        if isinstance(model, Answers):
            return cls(model, weights, None)
        few = pick(test, torch.arange(min(len(test), 2)), device)
        return cls(model, weights, settle(model.to(device), few.x))


def load_checkpoint(
    experiment: Experiment, directory: Run, checkpoint: Checkpoint, test: ImageSet, device: torch.device
) -> PlacedModel:
    """Builds the model of a run and loads the weights of a checkpoint."""
    # Normalisation is stored with the weights, so the statistics of the training images are not needed.
    model = build_model(replace(experiment, normalise=False), test)
    path = directory.weights(checkpoint)
    while True:
        before = digest(path)
        load_weights(model, path)
        if digest(path) == before:
            return PlacedModel.place(model, before, test, device)
        # A training has written new weights meanwhile: the digest must be that of the weights that were loaded.


def journal_key(subject: Subject, code: Sequence[Path], questions: Questions) -> str:
    """A key of everything that the outcome of a chunk depends on, except the attack and its radius."""
    kept = ("batch_size", "exact", "save", "corruption_files", "within")
    settings: list[object] = [package_digest(), subject.key, {name: getattr(questions, name) for name in kept}]
    if questions.corruption_files is not None:
        settings.append([*map(_glance, sorted(questions.corruption_files.glob("*.npy")))])
    text = json.dumps([*settings, *map(digest, code)], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _glance(path: Path) -> tuple[str, int, str]:
    """Name, size, and a digest of the first and last bytes of a large file, which one cannot read every time."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            ends = file.read(GLANCE)
            file.seek(max(0, size - GLANCE))
            return path.name, size, hashlib.sha256(ends + file.read(GLANCE)).hexdigest()
    except OSError:  # a broken link; who reads the file will say so
        return path.name, -1, ""


@cache
def package_digest(*more: str) -> str:
    """Digest of the code with which this package computes outcomes, and of `more` folders of it."""
    root, rooms = Path(regmix.__file__).parent, ("attacks", "corruptions", "data", "evaluation", "methods", "models")
    chosen = (*rooms, "runtime", *more)
    files = [*root.glob("*.py"), *(path for room in chosen for path in (root / room).rglob("*.py"))]
    text = "\n".join(f"{path.relative_to(root)} {digest(path)}" for path in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
