"""Own images: one folder per class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from regmix.data.images import ImageSet, Split
from regmix.data.stored import Files, Stored
from regmix.types import Tag, UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Own images as root/train/CLASS/* and root/test/CLASS/* (or root/val/CLASS/*)."""

    name: Tag[Literal["folder"]] = "folder"
    root: str = "data/images"
    """Folder that holds train/ and test/ (or val/), each with one folder per class."""
    size: int = 32
    """Height and width in pixels: the shorter side of other images is resized to it and their centre cut out."""
    stream: bool = False
    """Decode images whenever they are looked at, for sets that do not fit into memory."""

    def read(self, split: Split) -> ImageSet:
        """Images uint8 [N, 3, size, size], RGB; the classes are the sorted folder names, the same in both splits.

        Files count at any depth of a class folder if their suffix is one of SUFFIXES (in either case); hidden files
        and folders, other suffixes and files beside the class folders are ignored. The test split is test/ where it
        exists, else val/. Pixels are converted as `decode` says. Raises UserError naming a missing or empty folder,
        a class that one of the splits lacks, or a file that cannot be read.
        """
        if self.size < 1:
            raise UserError(f"the size of the images must be at least 1 pixel, not {self.size}")
        root = Path(self.root)
        test = root / "test" if (root / "test").is_dir() else root / "val"
        classes = _class_folders(root / "train")
        lonely = sorted(set(classes) ^ set(_class_folders(test)))
        if lonely:
            raise UserError(f"the class {lonely[0]!r} is only in one of {root / 'train'} and {test}")

        base = root / "train" if split == "train" else test
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = _image_files(base / name)
            if not files:
                raise UserError(f"{base / name} has no images ({' '.join(SUFFIXES)})")
            paths += files
            labels += [label] * len(files)
        images = ImageSet(Stored.of(Files(paths, root), self.size), torch.tensor(labels), tuple(classes))
        return images if self.stream else images.resident()


def _class_folders(base: Path) -> list[str]:
    if not base.is_dir():
        raise UserError(f"{base} is missing: images are expected as train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    names = sorted(path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise UserError(f"{base} has no class folders: images are expected as {base}/CLASS/*")
    return names


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
