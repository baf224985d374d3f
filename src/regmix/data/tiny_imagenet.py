"""Tiny ImageNet from its official folder layout."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from regmix.data.download import Archive, fetch_and_unpack
from regmix.data.images import ImageSet, Split
from regmix.data.stored import Files, Stored
from regmix.types import Tag, UserError

FOLDER = "tiny-imagenet-200"
ARCHIVE = Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", FOLDER)
SIZE = 64


@dataclass(frozen=True, kw_only=True)
class TinyImagenet:
    """Tiny ImageNet: 100,000 training and 10,000 test images, 64x64 RGB, 200 classes.

    The test split is the official val, whose labels are public. Source: Stanford CS231n, a subset of ImageNet (Deng et
    al., 2009).
    """

    name: Tag[Literal["tiny_imagenet"]] = "tiny_imagenet"
    root: str = "data/tiny-imagenet-200"
    """The official folder with train/, val/, wnids.txt and words.txt, or its parent folder."""
    download: bool = False
    """Download the official archive (237 MB) into root if it holds no files yet."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, 64, 64]. Class k is the k-th wnid of wnids.txt in sorted order.

        Its name is the first word for the wnid in words.txt.

        Raises:
            UserError: a file is missing or damaged; the message names it.
        """
        root = _find(Path(self.root), self.download)
        wnids = sorted(_read_lines(root / "wnids.txt"))
        if len(set(wnids)) < len(wnids) or not all(wnids):
            raise UserError(f"{root / 'wnids.txt'} has an empty or a repeated line; unpack {ARCHIVE.url} again")
        words = dict(line.partition("\t")[::2] for line in _read_lines(root / "words.txt"))
        classes = tuple(words.get(wnid, wnid).partition(",")[0] for wnid in wnids)
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        files = _train_files(root, wnids) if split == "train" else _val_files(root)

        for path, wnid in files:
            if wnid not in label_of:
                raise UserError(f"{path} belongs to {wnid}, which is not in {root / 'wnids.txt'}")
        counts = Counter(path for path, _ in files)
        if twice := [path for path, count in counts.items() if count > 1]:
            raise UserError(
                f"{root / 'val' / 'val_annotations.txt'} names {twice[0].name} twice; keep one of the lines"
            )
        images = Stored.of(Files([path for path, _ in files], root), size=None)
        if images.shape[2:] != (SIZE, SIZE):
            raise UserError(
                f"the images in {root} are not {SIZE}x{SIZE}; use the data source `folder` for images of other sizes"
            )
        labels = torch.tensor([label_of[wnid] for _, wnid in files])
        return ImageSet(images, labels, classes).resident()


def _find(root: Path, download: bool) -> Path:
    candidates = (root, root / FOLDER)
    if download and not any((folder / "wnids.txt").exists() for folder in candidates):
        fetch_and_unpack(ARCHIVE, root)
    for folder in candidates:
        if (folder / "wnids.txt").exists():
            return folder
    raise UserError(
        f"Tiny ImageNet is not in {root}: looked for wnids.txt there and in {FOLDER}/; "
        f"add --data.download, or unpack {ARCHIVE.url} there"
    )


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; unpack {ARCHIVE.url} again") from error


def _train_files(root: Path, wnids: list[str]) -> list[tuple[Path, str]]:
    files = []
    unknown = sorted({path.name for path in (root / "train").glob("[!.]*/") if path.is_dir()} - {*wnids})
    if unknown:
        raise UserError(f"{root / 'train' / unknown[0]} is not a class of {root / 'wnids.txt'}; rename or remove it")
    for wnid in wnids:
        class_files = sorted((root / "train" / wnid / "images").glob("[!.]*.JPEG"))
        if not class_files:
            raise UserError(f"{root / 'train' / wnid / 'images'} has no .JPEG files; unpack {ARCHIVE.url} again")
        boxes = root / "train" / wnid / f"{wnid}_boxes.txt"
        present = {path.name for path in class_files}
        # The file of boxes has a line for every image: its name and a box, separated by tabs.
        for name, tab, _ in (line.partition("\t") for line in (_read_lines(boxes) if boxes.is_file() else ())):
            if tab and name not in present:
                lost = root / "train" / wnid / "images" / name
                raise UserError(f"{lost} is missing; unpack {ARCHIVE.url} again")
        files += [(path, wnid) for path in class_files]
    return files


def _val_files(root: Path) -> list[tuple[Path, str]]:
    annotations = root / "val" / "val_annotations.txt"
    files = []
    for number, line in enumerate(_read_lines(annotations), start=1):
        name, *rest = line.split("\t")
        if not rest or "/" in name:
            raise UserError(f"{annotations} line {number} must start with an image and a wnid: {line!r}")
        files.append((root / "val" / "images" / name, rest[0]))
    if unlisted := sorted({*(root / "val" / "images").glob("[!.]*.JPEG")} - {path for path, _ in files}):
        raise UserError(f"{annotations} does not name {unlisted[0].name}; unpack {ARCHIVE.url} again")
    return files
