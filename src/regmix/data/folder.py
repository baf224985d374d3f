"""Own images: one folder per class."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from regmix.data.duplicates import copies, leak
from regmix.data.images import ImageSet, Split
from regmix.data.size import Channels, Size, format_size, height_and_width
from regmix.data.stored import Files, Stored
from regmix.runtime import processes
from regmix.runtime.files import printable
from regmix.types import Tag, UserError

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("apng", "avif", "bmp", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpf", "jpg", "jpx"),
        *("mpo", "pbm", "pfm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Suffixes of files that count as images, in upper or lower case."""
MOST_NAMED = 20
"""Folders that one message names."""
CLUTTER = frozenset(("thumbs.db", "desktop.ini"))
"""Files that Windows puts beside images, in upper or lower case. Other systems hide theirs."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Your own images, as root/train/CLASS/* and root/test/CLASS/* (or root/val/CLASS/*)."""

    name: Tag[Literal["folder"]] = "folder"
    root: str = "data/images"
    """Folder that holds train/ and test/ (or val/), each with one folder per class. An evaluation needs no train/; its
    images may also lie in root/CLASS/*."""
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
        split is test/ if it exists, else val/; if there is no train/ either, it is root itself. The images of a class
        are all files with one of SUFFIXES at any depth of its folder, also through links. Hidden files are ignored;
        `notes` mentions all other files. To read the training split, every class must have training images; test
        images, and their folder, are optional.

        Raises:
            UserError: a missing or empty folder, a class without training images, a broken link, or a file that cannot
                be read.
        """
        if min(height_and_width(self.size)) < 1:
            raise UserError(f"the size of the images must be at least 1 pixel, not {format_size(self.size)}")
        root = Path(self.root)
        train, test = root / "train", _test_folder(root, split)
        train_folders = _class_folders(train) if split == "train" or train.is_dir() else {}
        untested = split == "train" and not test.exists()
        test_folders = {} if untested else _class_folders(test)
        classes = sorted({*train_folders, *test_folders})
        untrained = sorted({*test_folders} - {*train_folders})
        if split == "train" and untrained:
            one, names = len(untrained) == 1, _all(map(repr, untrained))
            raise UserError(
                f"the {f'class {names} is' if one else f'classes {names} are'} in {test} but not in {train}: no model "
                f"could learn {'it' if one else 'them'}; give training images of each, or remove its folder"
            )
        base, folders = (train, train_folders) if split == "train" else (test, test_folders)
        skipped = _Skipped(base)
        paths: list[Path] = []
        labels: list[int] = []
        for label, class_paths in _images_by_label(classes, folders, skipped):
            paths += class_paths
            labels += [label] * len(class_paths)
        notes = [*_twins(classes), *_other_order(classes, folders), *skipped.notes()]
        if untested:
            notes.append(f"there are no test images; to evaluate the model, put some into {root / 'test'}/CLASS")
        if split == "train":
            notes += _beside(root, test)
        if split == "train" and not self.stream and processes.started()[0] == 0:
            notes += copies(paths, labels)
        if split == "test":
            notes += _test_notes(root, test, classes, train_folders, test_folders)
            if not self.stream:
                notes += leak(paths, _files_in(train_folders))
        images = Stored.of(Files(paths, root), self.size, self.channels)
        files = tuple(printable(path.relative_to(root).as_posix()) for path in paths)
        image_set = ImageSet(images, torch.tensor(labels), tuple(classes), tuple(notes), files)
        return image_set if self.stream else image_set.resident()

    @property
    def has_tests(self) -> bool:
        """Whether a run on these images has test images."""
        return _test_folder(Path(self.root), "train").is_dir()


def _test_folder(root: Path, split: Split) -> Path:
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / name
    return root if split == "test" and not (root / "train").exists() else root / "val"


def _class_folders(base: Path) -> dict[str, Path]:
    """The class folders by name. Names are normalised (NFC), because systems write accented letters differently."""
    if not base.is_dir():
        raise UserError(f"{base} is missing: images are expected as train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    folders: dict[str, Path] = {}
    for path in sorted(base.iterdir()):
        if _is_folder(path):
            if (name := printable(path.name)) != path.name:
                raise UserError(f"{printable(str(path))}: the name of this class folder is not UTF-8; rename it")
            name = unicodedata.normalize("NFC", path.name)
            if name in folders:
                raise UserError(f"two class folders of {base} are called {name!r}, in two spellings; merge them")
            folders[name] = path
    if not folders:
        raise UserError(f"{base} has no class folders: images are expected as {base}/CLASS/*")
    return folders


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


class _Skipped:
    """Counts the files below a folder that are skipped because they are not images, by suffix."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._kinds: Counter[str] = Counter()
        self._beside = sum(_counts(path.name) and path.is_file() for path in base.iterdir())

    def add(self, path: Path) -> None:
        self._kinds[path.suffix or "without a suffix"] += 1

    def notes(self) -> Iterator[str]:
        """One line for each reason to skip files."""
        if self._kinds:
            yield (
                f"{self._base}: {self._kinds.total()} files were skipped, because their suffix is not that of a "
                f"readable image: {_listed(self._kinds)}; convert photographs among them to JPEG or PNG"
            )
        if self._beside:
            yield f"{self._base}: {self._beside} files beside the class folders were skipped"


def _listed(kinds: Counter[str]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


def _all(names: Iterable[str]) -> str:
    """The names, so that all can be mended at once, unless there are very many."""
    every = [printable(name) for name in names]
    return ", ".join(every[:MOST_NAMED]) + (f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else "")


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in CLUTTER


def _images_by_label(
    classes: Sequence[str], folders: Mapping[str, Path], skipped: _Skipped
) -> Iterator[tuple[int, list[Path]]]:
    """The images of each class that has a folder. Raises UserError, which names all folders without images."""
    found = [(label, *_image_files(folders[name], skipped)) for label, name in enumerate(classes) if name in folders]
    empty = [(folders[classes[label]], others) for label, images, others in found if not images]
    if empty:
        folder, others = empty[0]
        if len(empty) > 1:
            raise UserError(
                f"{len(empty)} of {len(found)} folders of {folder.parent} have no images: "
                f"{_all(path.name for path, _ in empty)}; add some as JPEG or PNG, or remove the folders"
            )
        instead = f", only {_listed(others)}; convert photographs to JPEG or PNG" if others else ""
        raise UserError(f"{folder} has no images{instead or '; add some, or remove the folder'}")
    return ((label, images) for label, images, _ in found)


def _image_files(folder: Path, skipped: _Skipped) -> tuple[list[Path], Counter[str]]:
    """The images of a class, and other files by suffix. Raises UserError if a link or folder cannot be followed."""
    images, others = [], Counter[str]()
    for path in visible_files(folder):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a broken link; repair or remove it")
        if path.is_file():
            if path.suffix.lower() in SUFFIXES:
                images.append(path)
            else:
                others[path.suffix or "without a suffix"] += 1
                skipped.add(path)
    # By the parts of the path: Windows would sort paths without regard to case.
    return sorted(images, key=lambda path: path.relative_to(folder).parts), others


def _files_in(folders: Mapping[str, Path]) -> Iterator[Path]:
    for folder in folders.values():
        yield from visible_files(folder)


def visible_files(folder: Path) -> Iterator[Path]:
    """All files that are not hidden, at any depth. A folder that several links lead to is visited once."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}; change its permissions") from error

    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if _counts(name))


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


def _beside(root: Path, test: Path) -> Iterator[str]:
    """A note for a training about folders that it does not use, and which images it validates on."""
    others = [path.name for path in sorted(root.iterdir()) if _is_folder(path)]
    others = [name for name in others if name not in ("train", test.name)]
    if test.name == "val" and test.is_dir():
        yield f"{test} holds the test images; the validation images are taken from {root / 'train'} (--validation)"
    if others:
        yield (
            f"{root}: {_all(f'{name}/' for name in others)} {'is' if len(others) == 1 else 'are'} not used; the "
            "validation images are taken from train/ (--validation)"
        )


def _test_notes(
    root: Path,
    test: Path,
    classes: Sequence[str],
    train_folders: Mapping[str, Path],
    test_folders: Mapping[str, Path],
) -> Iterator[str]:
    if test == root:
        yield f"{root} has no train, test or val folder: all of its {len(classes)} folders are classes of test images"
    if test.name == "test" and (root / "val").is_dir():
        yield f"{root / 'val'} was skipped: the test images are those in {test}"
    beside = [] if test == root else [path.name for path in sorted(root.iterdir()) if _is_folder(path)]
    if beside := [name for name in beside if name not in ("train", "test", "val")]:
        yield f"{root}: {len(beside)} folders beside {test.name}/ were skipped: {', '.join(beside[:5])}"
    for kind, folders in (("training", train_folders), ("test", test_folders)):
        missing = [name for name in classes if name not in folders]
        if folders and missing:
            more = ", ..." if len(missing) > 5 else ""
            yield f"{len(missing)} of {len(classes)} classes have no {kind} images: {', '.join(missing[:5])}{more}"


def trained_on(other: Folder, own: Folder) -> Iterator[str]:
    """A note on test images of another folder that are also training images of a run's own folder, byte for byte."""
    train, base = Path(own.root) / "train", _test_folder(Path(other.root), "test")
    if train.is_dir() and train.resolve() != (Path(other.root) / "train").resolve():  # else `read` has said it
        skipped = _Skipped(base)
        paths = [path for folder in _class_folders(base).values() for path in _image_files(folder, skipped)[0]]
        yield from leak(paths, _files_in(_class_folders(train)))
