"""Labelled images from every source, in memory or decoded on access, their augmentation, and batches of them."""

from dataclasses import replace

from regmix.data.arrays import image_set
from regmix.data.augment import draw_views, from_view, take, to_view
from regmix.data.augmentations import Augmentations
from regmix.data.cifar import Cifar10, Cifar100
from regmix.data.crops import CropConfig, CropShift, NoCrop, ResizedCrop
from regmix.data.digits import Digits
from regmix.data.erase import Cutout, EraseConfig, NoErasing, RandomErasing
from regmix.data.fingerprint import changes, class_changes, fingerprint
from regmix.data.folder import Folder, held_out_folder, learned_from
from regmix.data.hub import Hub
from regmix.data.imagenet32 import Imagenet32
from regmix.data.images import ImageSet, Split
from regmix.data.loader import Loader, batches, pick, steps_per_epoch
from regmix.data.mix import CutMix, MixConfig, Mixup, NoMix
from regmix.data.parquet import Parquet
from regmix.data.place import placed
from regmix.data.recolour import ColorShape, ColourConfig, ColourJitter, Idbh, NoColour, RandAugment
from regmix.data.sample import How, draw, spread
from regmix.data.saved import DataFunction, Images
from regmix.data.splits import split_train
from regmix.data.svhn import Svhn
from regmix.data.tiny_imagenet import TinyImagenet

DataConfig = (
    Digits | Cifar10 | Cifar100 | Svhn | TinyImagenet | Imagenet32 | Folder | Parquet | Hub | Images | DataFunction
)


def load(config: DataConfig, split: Split) -> ImageSet:
    """Reads one split of a data source, into memory unless the source streams.

    Raises:
        UserError: a file is missing or damaged; the message names it.
    """
    assert split in ("train", "test"), split
    return config.read(split)


def load_training(
    config: DataConfig, examples: int | None, validation: int | None, seed: int
) -> tuple[ImageSet, ImageSet]:
    """The images to train on and those for validation; see `split_train`.

    Raises:
        UserError: as `load` and `split_train`.
    """
    train, held_out = load(config, "train"), config.read_validation() if isinstance(config, Folder) else None
    if held_out is not None:
        train = replace(train, notes=(*train.notes, *held_out.notes))
    return split_train(train, examples, validation, seed, held_out)


__all__ = [
    "Augmentations",
    "Cifar10",
    "Cifar100",
    "ColorShape",
    "ColourConfig",
    "ColourJitter",
    "CropConfig",
    "CropShift",
    "CutMix",
    "Cutout",
    "DataConfig",
    "DataFunction",
    "Digits",
    "EraseConfig",
    "Folder",
    "How",
    "Hub",
    "Idbh",
    "ImageSet",
    "Imagenet32",
    "Images",
    "Loader",
    "MixConfig",
    "Mixup",
    "NoColour",
    "NoCrop",
    "NoErasing",
    "NoMix",
    "Parquet",
    "RandAugment",
    "RandomErasing",
    "ResizedCrop",
    "Split",
    "Svhn",
    "TinyImagenet",
    "batches",
    "changes",
    "class_changes",
    "draw",
    "draw_views",
    "fingerprint",
    "from_view",
    "held_out_folder",
    "image_set",
    "learned_from",
    "load",
    "load_training",
    "pick",
    "placed",
    "split_train",
    "spread",
    "steps_per_epoch",
    "take",
    "to_view",
]
