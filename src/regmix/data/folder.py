"""Own images: one folder per class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from regmix.data.class_folders import (
    Skipped,
    all_names,
    class_folders,
    class_images,
    files_in,
    images_by_label,
    is_folder,
)
from regmix.data.duplicates import copies, leak
from regmix.data.images import ImageSet, Split
from regmix.data.size import Channels, Size, format_size, height_and_width
from regmix.data.stored import Files, Stored
from regmix.runtime import processes
from regmix.runtime.files import printable
from regmix.types import Tag, UserError, require

VALIDATION = ("val", "valid", "validation")
"""Folders of validation images. Without a test/, the first of them holds the test images."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Your own images, as root/train/CLASS/* and root/test/CLASS/* (or root/val/CLASS/*)."""

    name: Tag[Literal["folder"]] = "folder"
    root: str = "data/images"
    """Folder that holds train/ and test/ (or val/), each with one folder per class. A val/ beside test/ holds the
    validation images. An evaluation needs no train/; its images may also lie in root/CLASS/*."""
    size: Size = 32
    """Height and width in pixels, or one number for both. Images of another size are resized so that they just cover
    it, and cropped at the centre."""
    channels: Channels = "rgb"
    """Channels of the images. rgb: three. grey: one, to which colours are converted."""
    stream: bool = False
    """Decode images when they are needed instead of keeping all in memory."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, H, W], RGB, or [N, 1, H, W], grey, converted as in `decode`.

        The classes are the sorted names of the class folders of both splits, their accents composed (NFC). The test
        split is test/ if it exists, else val/ (or valid/, validation/); if there is no train/ either, it is root
        itself. The images of a class are all files with one of SUFFIXES at any depth of its folder, also through links.
        Hidden files are ignored; `notes` mentions all other files. To read the training split, every class must have
        training images; test images, and their folder, are optional.

        Raises:
            UserError: a missing or empty folder, a class without training images, a broken link, or a file that cannot
                be read.
        """
        root = Path(self.root)
        train, test = root / "train", _test_folder(root, split)
        train_folders = class_folders(train) if split == "train" or train.is_dir() else {}
        untested = split == "train" and not test.exists()
        test_folders = {} if untested else class_folders(test)
        classes = sorted({*train_folders, *test_folders})
        if split == "train":
            _check_trained(classes, test, train_folders)
            images, paths = self._images(train, train_folders, classes)
            notes = [*_twins(classes), *_other_order(classes, train_folders), *images.notes]
            if untested:
                notes.append(f"there are no test images; to evaluate the model, put some into {root / 'test'}/CLASS")
            validation = _validation_folder(root)
            notes += _beside(root, test, validation)
            if not self.stream and processes.started()[0] == 0:
                notes += copies(paths, images.labels.tolist(), drawn=validation is None)
        else:
            images, paths = self._images(test, test_folders, classes)
            notes = [*_twins(classes), *_other_order(classes, test_folders), *images.notes]
            notes += _test_notes(root, test, classes, train_folders, test_folders)
            if not self.stream:
                notes += leak(paths, files_in(train_folders), "test")
        images = replace(images, notes=tuple(notes))
        return images if self.stream else images.resident()

    def read_validation(self) -> ImageSet | None:
        """Reads the validation images, which lie in root/val/ (or valid/, validation/) beside root/test/, as `read`.

        None where there is no such folder. The classes are those of the training images.

        Raises:
            UserError: as `read`; or the folder is that of the test images, or has images of one class only.
        """
        root = Path(self.root)
        if (base := _validation_folder(root)) is None:
            return None
        train_folders, test = class_folders(root / "train"), root / "test"
        require(base.resolve() != test.resolve(), f"{base} and {test} are the same folder; remove the link")
        try:
            folders = class_folders(base)
            _check_trained(folders, base, train_folders)
            require(min(len(folders), 2) == min(len(train_folders), 2), f"all images in {base} are of one class")
            classes = sorted(train_folders)
            images, paths = self._images(base, folders, classes)
        except UserError as error:
            raise UserError(
                f"{error} (beside {test}, {base.name}/ holds the validation images; rename it to take them from train/)"
            ) from error
        notes = [*images.notes, *_absent("validation", classes, folders)]
        if not self.stream and processes.started()[0] == 0:
            notes += leak(paths, files_in(train_folders), "validation")
            notes += leak(paths, files_in(class_folders(test)), "validation", "test")
        return replace(images, notes=tuple(notes))

    def _images(
        self, base: Path, folders: Mapping[str, Path], classes: Sequence[str]
    ) -> tuple[ImageSet, Sequence[Path]]:
        """The images in these class folders, which are decoded on access, with notes on skipped files; their files."""
        if min(height_and_width(self.size)) < 1:
            raise UserError(f"the size of the images must be at least 1 pixel, not {format_size(self.size)}")
        skipped, root = Skipped(base), Path(self.root)
        paths: list[Path] = []
        labels: list[int] = []
        for label, class_paths in images_by_label(classes, folders, skipped):
            paths += class_paths
            labels += [label] * len(class_paths)
        images = Stored.of(Files(paths, root), self.size, self.channels)
        files = tuple(printable(path.relative_to(root).as_posix()) for path in paths)
        return ImageSet(images, torch.tensor(labels), tuple(classes), tuple(skipped.notes()), files), paths

    @property
    def has_tests(self) -> bool:
        """Whether a run on these images has test images."""
        return _test_folder(Path(self.root), "train").is_dir()


def _validation_folder(root: Path) -> Path | None:
    """The folder of validation images, if there is one beside training and test images."""
    if not ((root / "train").is_dir() and (root / "test").is_dir()):
        return None
    return next((path for name in VALIDATION if _is_there(path := root / name)), None)


def _is_there(path: Path) -> bool:
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a broken link; repair or remove it")
    return path.is_dir()


def _test_folder(root: Path, split: Split) -> Path:
    for name in ("test", *VALIDATION):
        if _is_there(root / name):
            return root / name
    return root if split == "test" and not (root / "train").exists() else root / "val"


def _twins(classes: Sequence[str]) -> Iterator[str]:
    """Notes on class names that may be meant as the same class."""
    first: dict[str, str] = {}
    for name in classes:
        other = first.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            yield f"the classes {other!r} and {name!r} differ only in case or spaces; merge them if they are the same"


def _other_order(classes: Sequence[str], folders: Mapping[str, Path]) -> Iterator[str]:
    """A note where names that are spelled with separate accents come in another order than on the disk."""
    here = [name for name in classes if name in folders]
    if (others := sorted(here, key=lambda name: folders[name].name)) != here:
        place = next(place for place, (name, other) in enumerate(zip(here, others, strict=True)) if name != other)
        yield (
            "accents in the names of the class folders are stored as characters of their own, as macOS does; the "
            f"classes are sorted without regard to that (class {place} is {here[place]!r}). ImageFolder and others "
            f"sort them as they are stored (class {place} is {others[place]!r}): for weights in that order, rename the "
            "folders"
        )


def _check_trained(classes: Iterable[str], base: Path, train_folders: Mapping[str, Path]) -> None:
    """Raises UserError for classes of test or validation images that have no training images."""
    if untrained := sorted({*classes} - {*train_folders}):
        one, names = len(untrained) == 1, all_names(map(repr, untrained))
        raise UserError(
            f"the {f'class {names} is' if one else f'classes {names} are'} in {base} but not in "
            f"{base.with_name('train')}: no model could learn {'it' if one else 'them'}; give training images of each, "
            "or remove its folder"
        )


def _beside(root: Path, test: Path, validation: Path | None) -> Iterator[str]:
    """A note for a training about folders that it does not use, and which images it validates on."""
    used = {"train", test.name, *([validation.name] if validation else [])}
    others = [f"{path.name}/" for path in sorted(root.iterdir()) if is_folder(path) and path.name not in used]
    source = "those of" if validation else "taken from"
    source += f" {validation or root / 'train'} (--validation)"
    if validation:
        yield f"the validation images are {source}"
    elif test.name in VALIDATION and test.is_dir():
        yield f"{test} holds the test images; the validation images are {source}"
    if others:
        more = "" if validation else f"; the validation images are {source}"
        yield f"{root}: {all_names(others)} {'is' if len(others) == 1 else 'are'} not used{more}"


def _test_notes(
    root: Path,
    test: Path,
    classes: Sequence[str],
    train_folders: Mapping[str, Path],
    test_folders: Mapping[str, Path],
) -> Iterator[str]:
    if test == root:
        yield f"{root} has no train, test or val folder: all of its {len(classes)} folders are classes of test images"
    for name in VALIDATION if not train_folders else ():
        if (root / name).is_dir() and root / name != test:
            yield f"{root / name} was skipped: the test images are those in {test}"
    beside = [] if test == root else [path.name for path in sorted(root.iterdir()) if is_folder(path)]
    if beside := [name for name in beside if name not in ("train", "test", *VALIDATION)]:
        yield f"{root}: {len(beside)} folders beside {test.name}/ were skipped: {', '.join(beside[:5])}"
    yield from _absent("training", classes, train_folders)
    yield from _absent("test", classes, test_folders)


def _absent(kind: str, classes: Sequence[str], folders: Mapping[str, Path]) -> Iterator[str]:
    """A note on classes without images of this kind."""
    missing = [name for name in classes if name not in folders]
    if folders and missing:
        more = ", ..." if len(missing) > 5 else ""
        yield f"{len(missing)} of {len(classes)} classes have no {kind} images: {', '.join(missing[:5])}{more}"


def held_out_folder(validation: ImageSet) -> str:
    """The name of the folder that the validation images lie in; empty if they are taken from the training images."""
    first = validation.files[0].partition("/")[0] if validation.files else ""
    return first if first in VALIDATION else ""


def learned_from(tested: Folder, own: Folder, held_out: str) -> Iterator[str]:
    """Notes on test images that are also images of a run's own folder, byte for byte.

    Args:
        tested: the folder with the test images, which may be the run's own.
        held_out: the folder of the run's validation images, see `held_out_folder`.

    Raises:
        UserError: test images are gone, so that the run's validation images stand in for them.
    """
    root, place = Path(own.root), Path(tested.root)
    base, train = _test_folder(place, "test"), root / "train"
    if held_out and base.name == held_out and base.parent == place and (place / "train").is_dir():
        if place.resolve() == root.resolve() or not root.exists():  # the second: its folder was moved
            raise UserError(
                f"{base} holds the validation images on which the run's best weights were chosen; put test images into "
                f"{base.with_name('test')}, or name their folder with --data.root"
            )
        yield (
            f"there is no {place / 'test'}, so the test images are those of {base}; if the run was validated on them, "
            "their accuracy is too high"
        )
    others = []
    if train.is_dir() and train.resolve() != (place / "train").resolve():  # else `read` has said it
        others.append((train, "training"))
    if held_out and (root / held_out).is_dir():
        others.append((root / held_out, "validation"))
    if others and not own.stream:
        skipped = Skipped(base)
        paths = [path for folder in class_folders(base).values() for path in class_images(folder, skipped)[0]]
        for folder, kind in others:
            with suppress(UserError):  # it is not needed to measure on other images
                yield from leak(paths, files_in(class_folders(folder)), "test", kind)
