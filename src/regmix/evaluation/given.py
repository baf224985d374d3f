"""Adversarial images from elsewhere, checked image by image against the test images and the threat set."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from regmix.attacks import NamedAttack
from regmix.attacks.given import Given
from regmix.data import ImageSet
from regmix.evaluation.subject import EvaluationImages
from regmix.runs.given import GivenFile, given_source, read_given
from regmix.runs.records import Source
from regmix.threats import L1, L2, Threat, format_eps
from regmix.types import UserError

GIVEN = "adversarial:"
RELATIVE, STEP = 1e-5, 2**-23
"""Rounding: a norm may exceed eps by this share of it, and by what a step of float32 at 1 in every pixel adds to it."""
CHUNK = 1000


def named_given(paths: Sequence[Path]) -> tuple[NamedAttack, ...]:
    """The attacks that these files and folders are.

    Raises:
        UserError: two of them would be called alike.
    """
    names = [f"{GIVEN}{path.resolve().name if path.is_dir() else path.resolve().stem}" for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two of the files of --adversarial would be called {name}; rename one of them")
    return tuple(NamedAttack(name, None, given=path.absolute()) for name, path in zip(names, paths, strict=True))


def tolerance(threat: Threat, shape: tuple[int, int, int]) -> float:
    """How far a norm may exceed eps because of rounding in float32."""
    size = shape[0] * shape[1] * shape[2]
    pixels = size if isinstance(threat, L1) else size**0.5 if isinstance(threat, L2) else 1
    return threat.eps * RELATIVE + STEP * pixels


def load_given(path: Path, test: EvaluationImages, threats: Sequence[Threat]) -> tuple[Given, Source]:
    """Reads a file or folder and checks all of its images that belong to the test images of an evaluation.

    Raises:
        UserError: what `read_given` raises, another number of images than there are, a position outside of the split,
            other labels, values outside [0, 1], or images farther from their test images than eps.
    """
    images = test.images
    held = read_given(path, images.shape)
    row = _rows(held, test, path)
    there = (row >= 0).nonzero()[:, 0]
    if not len(there):
        raise UserError(f"{path} has none of the {len(images)} test images that are evaluated")
    if held.labels is not None and (wrong := int((held.labels[row[there]] != images.labels[there]).sum())):
        raise UserError(f"{path}: {wrong} of {len(there)} labels are not those of the test images; check their order")
    _check_range(held, row[there], path)
    far = _distances(held, row, images, there, threats[0])  # in the norm that all radii have
    for threat in threats:
        most = threat.eps + tolerance(threat, images.shape)
        if outside := int((far > most).sum()):
            raise UserError(
                f"{path}: {outside} of {len(there)} images are farther from their test images than "
                f"eps={format_eps(threat.eps)}, by up to {float(far.max()) - threat.eps:.3g} (norm "
                f"{float(far.max()):.6g}); check eps, the order of the images, and the rounding of 8-bit files"
            )
    return Given(held.images, row), given_source(path)


def _rows(held: GivenFile, test: EvaluationImages, path: Path) -> Tensor:
    """For every test image of the evaluation its row in the file; -1 where the file has none."""
    count, row = len(held.images), torch.full((len(test.images),), -1)
    if held.index is not None:
        if not count:
            raise UserError(f"{path} holds no images")
        if int(held.index.min()) < 0 or int(held.index.max()) >= test.sample.of or int(held.index.bincount().max()) > 1:
            raise UserError(f"{path} names a position twice, or one outside of the {test.sample.of} test images")
        place = torch.full((test.sample.of,), -1)
        place[held.index] = torch.arange(count)
        return place[test.index]
    if count == test.sample.of:
        return test.index.clone()
    if count == len(test.images):
        return torch.arange(count)
    raise UserError(
        f"{path} has {count} images; give one for each of the {test.sample.of} test images, or for each of the "
        f"{len(row)} that are evaluated, in their order (for the first ones: --sample first --examples {count})"
    )


def _check_range(held: GivenFile, rows: Tensor, path: Path) -> None:
    if held.images.dtype == torch.uint8:
        return
    values = held.images[rows].double()
    beyond = torch.maximum(-values, values - 1).flatten(1).amax(1)
    if outside := int((beyond > STEP).sum()):
        hint = "; divide them by 255" if float(values.max()) > 2 else ""
        raise UserError(
            f"{path}: {outside} of {len(rows)} images leave [0, 1], by up to {float(beyond.max()):.3g}{hint}"
        )


def _distances(held: GivenFile, row: Tensor, images: ImageSet, there: Tensor, threat: Threat) -> Tensor:
    """The norm of every perturbation, in float64."""
    norms = []
    scale = 255 if held.images.dtype == torch.uint8 else 1
    for part in torch.split(there, CHUNK):
        clean = images.subset(part).pixels().double() / 255
        norms.append(threat.norm(held.images[row[part]].double() / scale - clean))
    return torch.cat(norms)
