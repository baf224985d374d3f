"""CIFAR-10 and CIFAR-100 from the official files, Python or binary, or from parquet."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from regmix.data.cifar_files import Rows, read_binary, read_python
from regmix.data.download import Archive, fetch_and_unpack
from regmix.data.images import ImageSet, Split, check_labels
from regmix.data.parquet import read_parquet
from regmix.data.row_groups import Disk
from regmix.types import Tag, UserError

DIGESTS = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
    "train": "md5:16019d7e3df5f24257cddd939b257f8d",
    "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
    # No digests of the binary files were published; these are the first digits of our own.
    "data_batch_1.bin": "sha1:aadd24ac",
    "data_batch_2.bin": "sha1:c0ba65cc",
    "data_batch_3.bin": "sha1:1dd00a74",
    "data_batch_4.bin": "sha1:aab85764",
    "data_batch_5.bin": "sha1:26e2849e",
    "test_batch.bin": "sha1:67eb016d",
}
"""First digits of the digest that a file of this name must have."""

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class Layout(NamedTuple):
    """How one of the two data sets is stored."""

    title: str
    files: dict[Split, tuple[str, ...]]
    """Official names, without the suffix .bin of the binary files."""
    rows: dict[Split, int]
    """Images in each of these files."""
    folders: tuple[str, ...]
    """Folders below the root to search."""
    label_key: str
    """Key of the labels in the pickled dict."""
    label_bytes: int
    """Label bytes before the pixels of a binary row; the last one is the label."""
    label_columns: tuple[str, ...]
    """Possible label columns of a parquet file."""
    classes: tuple[str, ...]
    archive: Archive


CIFAR10 = Layout(
    title="CIFAR-10",
    files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    rows={"train": 10_000, "test": 10_000},
    folders=("", "cifar-10-batches-py", "cifar-10-batches-bin", "plain_text"),
    label_key="labels",
    label_bytes=1,
    label_columns=("label",),
    classes=tuple(CIFAR10_CLASSES.split()),
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
    ),
)
CIFAR100 = Layout(
    title="CIFAR-100",
    files={"train": ("train",), "test": ("test",)},
    rows={"train": 50_000, "test": 10_000},
    folders=("", "cifar-100-python", "cifar-100-binary", "cifar100"),
    label_key="fine_labels",
    label_bytes=2,
    label_columns=("fine_label", "label"),
    classes=tuple(CIFAR100_CLASSES.split()),
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Cifar10:
    """CIFAR-10: 50,000 training and 10,000 test images, 32x32 RGB, 10 classes.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    name: Tag[Literal["cifar10"]] = "cifar10"
    root: str = "data/cifar10"
    """Folder with the official files (Python or binary), or with train-*.parquet and test-*.parquet."""
    download: bool = False
    """Download the official Python files (170 MB) into root if it holds no files yet."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, 32, 32] in the official order.

        Raises:
            UserError: a file is missing or damaged.
        """
        return _read(CIFAR10, Path(self.root), self.download, split)


@dataclass(frozen=True, kw_only=True)
class Cifar100:
    """CIFAR-100: 50,000 training and 10,000 test images, 32x32 RGB, 100 (fine) classes.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    name: Tag[Literal["cifar100"]] = "cifar100"
    root: str = "data/cifar100"
    """Folder with the official files (Python or binary), or with train-*.parquet and test-*.parquet."""
    download: bool = False
    """Download the official Python files (169 MB) into root if it holds no files yet."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, 32, 32] in the official order.

        Raises:
            UserError: a file is missing or damaged.
        """
        return _read(CIFAR100, Path(self.root), self.download, split)


def _read(layout: Layout, root: Path, download: bool, split: Split) -> ImageSet:
    files = _find(layout, root, split)
    if not files and download:
        fetch_and_unpack(layout.archive, root)
        files = _find(layout, root, split)
    if not files:
        name = layout.files[split][0]
        folders = ", ".join(folder + "/" for folder in layout.folders if folder)
        raise UserError(
            f"{layout.title} is not in {root}: looked there and in {folders} for {name}, {name}.bin and "
            f"{split}-*.parquet; add --data.download, or unpack {layout.archive.url} there"
        )
    if files[0].suffix == ".parquet":
        columns = ("img", "image"), layout.label_columns
        image_set = read_parquet([str(path) for path in files], *columns, layout.classes, store=Disk(root))
        total = layout.rows[split] * len(layout.files[split])
        note = f"{files[0].parent} has {len(image_set)} of the {total} images of {layout.title}'s {split} split"
        return image_set if len(image_set) == total else replace(image_set, notes=(*image_set.notes, note))
    for path in files:
        if not path.is_file():
            raise UserError(f"{path} is missing; unpack {layout.archive.url} again")

    batches = [_read_file(layout, path, layout.rows[split]) for path in files]
    images = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), layout.classes)


def _find(layout: Layout, root: Path, split: Split) -> Sequence[Path]:
    """The files of a split; empty if there is none. Some of them may be missing."""
    for folder in layout.folders:
        base = root / folder
        for suffix in ("", ".bin"):
            files = [base / (name + suffix) for name in layout.files[split]]
            if any(path.is_file() for path in files):
                return files
        if parquet := sorted(base.glob(f"{split}-*.parquet")):
            return parquet
    return []


def _read_file(layout: Layout, path: Path, rows: int) -> Rows:
    content = path.read_bytes()
    # No digest of CIFAR-100's binary files is known; an empty digest accepts any content.
    kind, _, digest = DIGESTS.get(path.name, "md5:").partition(":")
    if not hashlib.new(kind, content, usedforsecurity=False).hexdigest().startswith(digest):
        raise UserError(f"{path} is not the official file (its {kind} is wrong); delete it and fetch it again")
    if path.suffix == ".bin":
        pixels, labels = read_binary(path, content, layout.label_bytes, rows)
    else:
        pixels, labels = read_python(path, content, layout.label_key)
    check_labels(path, labels, layout.classes)
    return pixels, labels
