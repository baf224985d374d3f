"""Own images: one folder per class."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from regmix.data.images import ImageSet, Split
from regmix.data.stored import Files, Stored
from regmix.types import Tag, UserError

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("apng", "avif", "bmp", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpf", "jpg", "jpx"),
        *("mpo", "pbm", "pfm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Of the files that count as images, in either case."""
CLUTTER = frozenset(("thumbs.db", "desktop.ini"))
"""What Windows puts beside images, in either case; that of other systems is hidden."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Your own images, as root/train/CLASS/* and root/test/CLASS/* (or root/val/CLASS/*)."""

    name: Tag[Literal["folder"]] = "folder"
    root: str = "data/images"
    """Folder that holds train/ and test/ (or val/), each with one folder per class. An evaluation needs no train/; its
    images may also lie in root/CLASS/*."""
    size: int = 32
    """Height and width in pixels. Images of another size are resized so that the shorter side fits, and cropped at the
    centre."""
    stream: bool = False
    """Decode images when they are needed instead of keeping all in memory."""

    def read(self, split: Split) -> ImageSet:
        """Images uint8 [N, 3, size, size], RGB; the classes are the sorted names of the class folders of both splits.

        Files count at any depth of a class folder, also through links, if their suffix is one of SUFFIXES; hidden ones
        are ignored, and the notes tell of all other files. The test split is test/ where it exists, else val/, and
        where there is no train/ either, root itself. Every class needs training images, unless only test images are
        read; without test images it may be. Pixels are converted as `decode` says. Raises UserError naming a missing or
        empty folder, a class without training images, a link to nothing, or a file that cannot be read.
        """
        if self.size < 1:
            raise UserError(f"the size of the images must be at least 1 pixel, not {self.size}")
        root = Path(self.root)
        train, test = root / "train", _test_folder(root, split)
        learnt = _class_folders(train) if split == "train" or train.is_dir() else {}
        asked = _class_folders(test)
        classes = sorted({*learnt, *asked})
        untaught = sorted({*asked} - {*learnt})
        if split == "train" and untaught:
            raise UserError(
                f"the class {untaught[0]!r} is in {test} but not in {train}: no model could learn it; "
                "give it training images, or remove its folder"
            )
        base, folders = (train, learnt) if split == "train" else (test, asked)
        left_out = _Left(base)
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            if name in folders:
                of_class = _image_files(folders[name], left_out)
                paths += of_class
                labels += [label] * len(of_class)
        notes = [*_twins(classes), *left_out.notes()]
        if split == "test":
            notes += _test_notes(root, test, classes, learnt, asked)
            if not self.stream:
                notes += _leak(paths, learnt.values())
        images = Stored.of(Files(paths, root), self.size)
        found = ImageSet(images, torch.tensor(labels), tuple(classes), tuple(notes))
        return found if self.stream else found.resident()


def _test_folder(root: Path, split: Split) -> Path:
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / name
    return root if split == "test" and not (root / "train").exists() else root / "val"


def _class_folders(base: Path) -> dict[str, Path]:
    """The class folders by their names, in which letters with accents are composed whatever system wrote them."""
    if not base.is_dir():
        raise UserError(f"{base} is missing: images are expected as train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    found: dict[str, Path] = {}
    for path in sorted(base.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            name = unicodedata.normalize("NFC", path.name)
            if name in found:
                raise UserError(f"two class folders of {base} are called {name!r}, in two spellings; merge them")
            found[name] = path
    if not found:
        raise UserError(f"{base} has no class folders: images are expected as {base}/CLASS/*")
    return found


class _Left:
    """The files below a folder that are no images to us, by their kind."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._kinds: Counter[str] = Counter()
        self._beside = sum(_counts(path.name) and path.is_file() for path in base.iterdir())

    def add(self, path: Path) -> None:
        self._kinds[path.suffix or "without a suffix"] += 1

    def notes(self) -> Iterator[str]:
        """A line for each way to be left out."""
        if self._kinds:
            yield (
                f"{self._base}: {self._kinds.total()} files were left out, whose suffix is none of an image that can "
                f"be read: {_listed(self._kinds)}; convert photographs among them to JPEG or PNG"
            )
        if self._beside:
            yield f"{self._base}: {self._beside} files beside the class folders were left out"


def _listed(kinds: Counter[str]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in CLUTTER


def _image_files(folder: Path, left_out: _Left) -> list[Path]:
    """The images of a class. Raises UserError if there are none, or for what cannot be looked at."""
    found, others = [], Counter[str]()
    for path in _files(folder):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to nothing; repair or remove it")
        if path.is_file():
            if path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                others[path.suffix or "without a suffix"] += 1
                left_out.add(path)
    if not found:
        instead = f", only {_listed(others)}; convert photographs to JPEG or PNG" if others else ""
        raise UserError(f"{folder} has no images{instead or '; add some, or remove the folder'}")
    # By the parts of the path, as it is sorted everywhere but on Windows, which compares without case.
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _files(folder: Path) -> Iterator[Path]:
    """All that is no folder and not hidden, at any depth; a folder that several links lead to is looked at once."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be looked into: {error.strerror}") from error

    seen: set[str] = set()
    for at, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(at, name) for name in names if _counts(name))


def _twins(classes: Sequence[str]) -> Iterator[str]:
    """Names of classes that a person could take for one."""
    first: dict[str, str] = {}
    for name in classes:
        other = first.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            yield f"{other!r} and {name!r} are two classes, whose names differ only in case or spaces: is it one"


def _test_notes(
    root: Path, test: Path, classes: Sequence[str], learnt: Mapping[str, Path], asked: Mapping[str, Path]
) -> Iterator[str]:
    if test == root:
        yield f"{root} has no train, test or val folder: all of its {len(classes)} folders are classes of test images"
    if test.name == "test" and (root / "val").is_dir():
        yield f"{root / 'val'} was left out: the test images are those of {test}"
    for what, there in (("training", learnt), ("test", asked)):
        lacking = [name for name in classes if name not in there]
        if there and lacking:
            more = ", ..." if len(lacking) > 5 else ""
            yield f"{len(lacking)} of {len(classes)} classes have no {what} images: {', '.join(lacking[:5])}{more}"


def _leak(test: Sequence[Path], train: Iterable[Path]) -> Iterator[str]:
    """Test images that are training images, too, byte for byte."""
    sizes = {path.stat().st_size for path in test}
    alike = [path for folder in train for path in _files(folder) if path.is_file() and path.stat().st_size in sizes]
    first = {_digest(path): path for path in alike}
    both = [path for path in test if _digest(path) in first] if first else []
    if both:
        yield (
            f"{len(both)} of {len(test)} test images are training images, byte for byte, such as {both[0]} and "
            f"{first[_digest(both[0])]}: accuracy on them says nothing about new images"
        )


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
