"""Which augmentations a method can learn from, and how an experiment names them."""

from typing import Any

import pytest

from regmix.cli.train import parse_training
from regmix.config import Experiment, from_json, to_json
from regmix.config.averaging import GatedEma
from regmix.data import (
    ColorShape,
    ColourJitter,
    CropShift,
    CutMix,
    Cutout,
    Idbh,
    Mixup,
    NoColour,
    NoCrop,
    RandAugment,
    RandomErasing,
    ResizedCrop,
)
from regmix.methods import METHODS
from regmix.types import UserError


def test_an_experiment_comes_back_from_its_file() -> None:
    experiment = Experiment(
        method=METHODS["trades"](),
        crop=ResizedCrop(scale=(0.3, 1.0)),
        colour=RandAugment(operations=("rotate", "hue")),
        erase=Cutout(side=3),
        mix=CutMix(alpha=0.5),
    )
    assert from_json(to_json(experiment)) == experiment


def test_a_file_of_an_earlier_version_has_no_augmentations() -> None:
    written = to_json(Experiment())
    shorter = "\n".join(line for line in written.splitlines())
    for part in ("crop", "colour", "erase", "mix"):
        shorter = shorter.replace(f'  "{part}": {{\n    "name": "none"\n  }},\n', "")
    assert '"crop"' not in shorter
    read = from_json(shorter)
    assert (read.crop, read.colour) == (NoCrop(), NoColour())
    assert read == Experiment()


REFUSED = [
    ("fgsm_ep", {"crop": ResizedCrop()}, "resized crops"),
    ("atas", {"colour": RandAugment()}, "move pixels"),
    ("fgsm_mep", {"colour": ColorShape()}, "move pixels.*name other --colour.operations"),
    ("fgsm_mep", {"colour": Idbh()}, "move pixels; use --colour jitter$"),
    ("fgsm_ep", {"mix": Mixup()}, "per image"),
    ("liet", {"mix": CutMix()}, "per class"),
    ("mart", {"mix": Mixup()}, "one class per image"),
    ("tdat", {"mix": CutMix()}, "--mix none"),
    ("trades", {"crop": CropShift(), "pad": 4}, "both crops"),
    ("regmix", {"mix": Mixup(), "averaging": GatedEma()}, "gated_ema"),
]


@pytest.mark.parametrize(("method", "settings", "message"), REFUSED)
def test_what_a_method_cannot_follow_is_refused_in_one_line(
    method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Experiment(method=METHODS[method](), **settings)
    assert "\n" not in str(caught.value)


def test_flags_may_follow_a_kind_that_does_not_fit_by_itself() -> None:
    """The recipe has padded crops, and the operations of rand_augment move pixels unless others are named."""
    words = "photos --method atas --crop crop_shift --pad 0 --colour rand_augment --colour.operations brightness hue"
    experiment = parse_training(words.split())[1].experiment
    assert (experiment.crop, experiment.pad) == (CropShift(), 0)
    with pytest.raises(UserError, match="--crop crop_shift and --pad 4 are both crops"):
        parse_training(["photos", "--crop", "crop_shift"])


ALLOWED = [
    ("fgsm_ep", {"crop": CropShift(), "colour": ColourJitter(), "erase": RandomErasing()}),
    ("atas", {"colour": RandAugment(operations=("brightness", "equalize")), "erase": Cutout()}),
    ("regmix", {"crop": ResizedCrop(), "colour": RandAugment(), "erase": RandomErasing(), "mix": Mixup()}),
    ("free_at", {"mix": CutMix()}),
]


@pytest.mark.parametrize(("method", "settings"), ALLOWED)
def test_all_else_composes(method: str, settings: dict[str, Any]) -> None:
    Experiment(method=METHODS[method](), **settings)
