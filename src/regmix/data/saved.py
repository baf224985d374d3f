"""Images from Python code: kept in files, or returned by a function of the user."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regmix.data.arrays import image_set
from regmix.data.fingerprint import class_changes, fingerprint
from regmix.data.images import ImageSet, Split
from regmix.runtime.files import write_atomically
from regmix.runtime.imported import imported
from regmix.types import Tag, UserError, require

DIGEST, CLASSES = "fingerprint", "classes"


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images that `Images.of` has saved in a folder, as train.safetensors and test.safetensors.

    Images.of(x_and_y) takes arrays or a data set from Python, and its result is the `data` of an experiment. A run
    names the folder, so that it is read back by `regmix evaluate RUN`, as it was: the files hold its fingerprint.
    """

    name: Tag[Literal["images"]] = "images"
    root: str = "data/images"
    """Folder with the files."""

    @staticmethod
    def of(
        train: Any = None, test: Any = None, *, root: str | Path | None = None, classes: Sequence[str] | None = None
    ) -> "Images":
        """Keeps training images, test images or both in a folder, and returns the settings that read them.

        Args:
            train, test: (x, y) arrays, a map-style data set, or an ImageSet; see `image_set`.
            root: the folder. None: data/images-DIGEST, named after the images.
            classes: names of the classes; without them those of the images.

        Raises:
            UserError: as `image_set`; splits of different classes or shapes; or a folder that holds other images.
        """
        given: dict[Split, Any] = {"train": train, "test": test}
        splits = {
            split: image_set(images, classes, f"the {'training' if split == 'train' else split} images").resident()
            for split, images in given.items()
            if images is not None
        }
        require(bool(splits), "Images.of needs training images, test images or both")
        first, last = next(iter(splits.values())), [*splits.values()][-1]
        if difference := class_changes(first.classes, last.classes):
            raise UserError(f"the test images have other classes than the training images: {difference}; give classes=")
        require(
            first.shape == last.shape,
            f"the training images are {list(first.shape)} and the test images {list(last.shape)}; give one shape",
        )
        marks = {split: fingerprint(images).digest for split, images in splits.items()}
        folder = Path(root) if root is not None else Path("data") / f"images-{'-'.join(m[:8] for m in marks.values())}"
        for split in given:
            path = _file(folder, split)
            if path.exists() and (split not in splits or _stored_mark(path) != marks[split]):
                raise UserError(f"{path} holds other images; give another root, or remove it")
        for split, images in splits.items():
            _write(_file(folder, split), images, marks[split])
        return Images(root=str(folder))

    def read(self, split: Split) -> ImageSet:
        """Reads the images as they were kept.

        Raises:
            UserError: a file is missing, or not as it was written.
        """
        path = _file(Path(self.root), split)
        if not path.is_file():
            made = "Images.of(train, test)"
            raise UserError(f"{path} is missing; make it with {made} in Python, or correct --data.root")
        return _read(path)

    @property
    def has_tests(self) -> bool:
        """Whether a run on these images has test images."""
        return _file(Path(self.root), "test").is_file()


@dataclass(frozen=True, kw_only=True)
class DataFunction:
    """Your own images: a function that is called with "train" or "test" and returns the images of that split.

    It returns (x, y) or (x, y, classes) with arrays, a map-style data set, or an ImageSet; see `image_set`. It must
    return the same images in every call. The current folder is searched for the module too. Its code is run, so the
    user must have named it.
    """

    name: Tag[Literal["function"]] = "function"
    source: str = ""
    """The function as module:function, such as my_data:make. Its code is run."""

    def read(self, split: Split) -> ImageSet:
        """Calls the function, and checks what it returns.

        Raises:
            UserError: it cannot be imported, fails, or returns something else.
        """
        function = imported(self.source, "data")
        try:
            given = function(split)
        except UserError:
            raise
        except Exception as error:
            why = " ".join(str(error).split())
            raise UserError(f"{self.source}({split!r}) failed: {type(error).__name__}: {why}") from error
        return image_set(given, None, f"{self.source}({split!r})")


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.safetensors"


def _write(path: Path, images: ImageSet, mark: str) -> None:
    from safetensors.torch import save

    tensors = {"images": images.pixels().contiguous(), "labels": images.labels.contiguous()}
    content = save(tensors, {DIGEST: mark, CLASSES: json.dumps(images.classes)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; give another root") from error


def _stored_mark(path: Path) -> str:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get(DIGEST, ""))
    except Exception:  # it is no such file
        return ""


def _read(path: Path) -> ImageSet:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            images = ImageSet(
                file.get_tensor("images"), file.get_tensor("labels"), tuple(map(str, json.loads(facts[CLASSES])))
            )
            mark = facts[DIGEST]
    except Exception as error:  # a damaged file can raise nearly any exception
        raise UserError(f"{path} cannot be read as images ({type(error).__name__}); make it again") from error
    if fingerprint(images).digest != mark:
        raise UserError(f"{path} has changed since it was written; make it again with Images.of")
    return images
