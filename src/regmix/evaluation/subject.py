"""What an evaluation is about: the images of a test split, and a checkpoint's model with all that identifies it."""

import hashlib
import json
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from regmix import __version__
from regmix.config import Experiment, build_model
from regmix.data import DataConfig, How, ImageSet, class_changes, draw, fingerprint, load
from regmix.evaluation.questions import Questions
from regmix.models import load_weights
from regmix.runs import Checkpoint, Run
from regmix.runs.records import Subject
from regmix.runtime.files import digest
from regmix.types import Fingerprint, Sample, UserError


@dataclass(frozen=True, eq=False)
class Chosen:
    """The images of the test split that an evaluation uses."""

    images: ImageSet
    index: Tensor
    """Their positions in the split, int64 [N]."""
    sample: Sample
    split: Fingerprint
    """Of the whole split."""


def choose_images(data: DataConfig, count: int | None, how: How = "stratified", seed: int = 0) -> Chosen:
    """A sample of the test split, see `draw`; `count` None takes all.

    Raises:
        UserError: as `load`, and for more images than there are or less than one.
    """
    test = load(data, "test")
    if count is not None and not 1 <= count <= len(test):
        raise UserError(f"--examples {count}: the test split has {len(test)} images; ask for 1 to {len(test)}")
    sample, positions = draw(test.labels, count, how, seed)
    return Chosen(test if sample.how == "all" else test.subset(positions), positions, sample, fingerprint(test))


def check_images(directory: Run, images: ImageSet) -> None:
    """Raises UserError unless the images have the classes and the shape that the run was made for."""
    known = directory.result()
    if known.classes and (text := class_changes(tuple(known.classes), images.classes)):
        raise UserError(
            f"the test images have other classes than {directory.path} was trained on: {text}; "
            "give it images of its own classes, in folders of the same names"
        )
    if known.shape and tuple(known.shape) != images.shape:
        was, now = ("x".join(map(str, shape)) for shape in (known.shape, images.shape))
        raise UserError(f"the test images are {now} (channels, height, width); {directory.path} was trained on {was}")


def load_checkpoint(
    experiment: Experiment, directory: Run, checkpoint: Checkpoint, test: ImageSet
) -> tuple[nn.Module, str]:
    """The model with a checkpoint's weights, and the digest of their file."""
    # Normalisation comes with the weights, so the statistics of the training images are not needed here.
    model = build_model(replace(experiment, normalise=False), test)
    path = directory.weights(checkpoint)
    while True:
        before = digest(path)
        load_weights(model, path)
        if digest(path) == before:
            return model, before
        # a training has written new weights meanwhile: the digest must be of those that were loaded


def journal_key(subject: Subject, code: Sequence[Path], questions: Questions) -> str:
    """Names everything that the outcome of a chunk depends on, but for the attack and its radius."""
    kept = ("batch_size", "exact", "save", "corruption_files")
    settings = [__version__, subject.key, {name: getattr(questions, name) for name in kept}]
    text = json.dumps([*settings, *map(digest, code)], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_users(path: Path) -> bool:
    """Whether code is neither this package's nor an installed library's."""
    libraries = [Path(__file__).parent, *map(Path, {sysconfig.get_path(name) for name in ("purelib", "stdlib")})]
    return not any(path.is_relative_to(folder.resolve()) for folder in libraries)
