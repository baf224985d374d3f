"""The images in folders of classes: which files count, in which order, and what is said about the others."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from regmix.runtime.files import printable
from regmix.types import UserError

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


def class_folders(base: Path) -> dict[str, Path]:
    """The class folders by name. Names are normalised (NFC), because systems write accented letters differently."""
    if not base.is_dir():
        raise UserError(f"{base} is missing: images are expected as train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    folders: dict[str, Path] = {}
    for path in sorted(base.iterdir()):
        if is_folder(path):
            if (name := printable(path.name)) != path.name:
                raise UserError(f"{printable(str(path))}: the name of this class folder is not UTF-8; rename it")
            name = unicodedata.normalize("NFC", path.name)
            if name in folders:
                raise UserError(f"two class folders of {base} are called {name!r}, in two spellings; merge them")
            folders[name] = path
    if not folders:
        raise UserError(f"{base} has no class folders: images are expected as {base}/CLASS/*")
    return folders


def is_folder(path: Path) -> bool:
    """Whether this is a folder that is not hidden."""
    return path.is_dir() and not path.name.startswith(".")


class Skipped:
    """Counts the files below a folder that are skipped because they are not images, by suffix."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._kinds: Counter[str] = Counter()
        self._beside = sum(_counts(path.name) and path.is_file() for path in base.iterdir())

    def add(self, path: Path) -> None:
        """Counts a file."""
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


def all_names(names: Iterable[str]) -> str:
    """The names, so that all can be mended at once, unless there are very many."""
    every = [printable(name) for name in names]
    return ", ".join(every[:MOST_NAMED]) + (f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else "")


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in CLUTTER


def images_by_label(
    classes: Sequence[str], folders: Mapping[str, Path], skipped: Skipped
) -> Iterator[tuple[int, list[Path]]]:
    """The images of each class that has a folder. Raises UserError, which names all folders without images."""
    found = [(label, *class_images(folders[name], skipped)) for label, name in enumerate(classes) if name in folders]
    empty = [(folders[classes[label]], others) for label, images, others in found if not images]
    if empty:
        folder, others = empty[0]
        if len(empty) > 1:
            raise UserError(
                f"{len(empty)} of {len(found)} folders of {folder.parent} have no images: "
                f"{all_names(path.name for path, _ in empty)}; add some as JPEG or PNG, or remove the folders"
            )
        instead = f", only {_listed(others)}; convert photographs to JPEG or PNG" if others else ""
        raise UserError(f"{folder} has no images{instead or '; add some, or remove the folder'}")
    return ((label, images) for label, images, _ in found)


def class_images(folder: Path, skipped: Skipped) -> tuple[list[Path], Counter[str]]:
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


def files_in(folders: Mapping[str, Path]) -> Iterator[Path]:
    """All files in these class folders that are not hidden."""
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
