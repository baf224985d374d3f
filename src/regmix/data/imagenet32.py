"""ImageNet-32 from its official batches, pickled or npz."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from regmix.data.cifar_files import Rows, check_batch, read_python
from regmix.data.images import ImageSet, Split, check_labels
from regmix.types import Tag, UserError

FILES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"train_data_batch_{number}" for number in range(1, 11)),
    "test": ("val_data",),
}
ARCHIVES: dict[Split, str] = {"train": "Imagenet32_train", "test": "Imagenet32_val"}
IMAGES: dict[Split, int] = {"train": 1_281_167, "test": 50_000}
CLASSES = tuple(str(label) for label in range(1, 1001))
SITE = "https://image-net.org/download-images"


@dataclass(frozen=True, kw_only=True)
class Imagenet32:
    """ImageNet-32: 1,281,167 training and 50,000 test images, 32x32 RGB, 1000 classes.

    The test split is the official val, whose labels are public. Classes have the numbers of the files, 1 to 1000, as
    names; their order is not that of the sorted wnids. Reading the training images takes about 8 GB of memory.
    Source: a downsampled variant of ImageNet, arXiv 1707.08819.
    """

    name: Tag[Literal["imagenet32"]] = "imagenet32"
    root: str = "data/imagenet32"
    """Folder with train_data_batch_1 to train_data_batch_10 and val_data, pickled or .npz, or with the folders that
    the archives unpack to."""

    def read(self, split: Split) -> ImageSet:
        """Reads images uint8 [N, 3, 32, 32] in the official order.

        Raises:
            UserError: a file is missing or damaged.
        """
        files = _find(Path(self.root), split)
        batches = [_read_file(path) for path in files]
        images = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([labels for _, labels in batches])
        note = f"{files[0].parent} has {len(images):,} of the {IMAGES[split]:,} images of ImageNet-32's {split} split"
        notes = () if len(images) == IMAGES[split] else (note,)
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), CLASSES, notes)


def _find(root: Path, split: Split) -> list[Path]:
    names, archive = FILES[split], ARCHIVES[split]
    for folder in ("", archive, f"{archive}_npz"):
        for suffix in ("", ".npz"):
            files = [root / folder / (name + suffix) for name in names]
            if any(path.is_file() for path in files):
                if lost := [path for path in files if not path.is_file()]:
                    raise UserError(f"{lost[0]} is missing; unpack {archive}.zip of {SITE} again")
                return files
    raise UserError(
        f"ImageNet-32 is not in {root}: looked there and in {archive}/ for {names[0]} and {names[0]}.npz; download "
        f"{archive}.zip from {SITE}, which asks for an account, and unpack it there"
    )


def _read_file(path: Path) -> Rows:
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                pixels, labels = arrays["data"], arrays["labels"].astype(np.int64)
        except Exception as error:  # a damaged file can raise nearly any exception
            raise UserError(f"{path} cannot be read ({error!r}); delete it and unpack it again") from error
        check_batch(path, pixels, labels, "labels")
    else:
        pixels, labels = read_python(path, path.read_bytes(), "labels")
    check_labels(path, labels, CLASSES, first=1)
    return pixels, labels - 1
