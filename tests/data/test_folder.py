import os

import numpy as np
import pytest

from regmix.data import Folder, load
from regmix.types import UserError


@pytest.fixture
def root(tmp_path, encode):
    """Two classes, cats darker than dogs, each split with two images per class."""
    for split in ("train", "test"):
        for name, grey in (("dog", 200), ("cat", 50)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                (folder / f"{i}.png").write_bytes(encode(np.full((8, 12), grey + i, np.uint8)))
    return tmp_path


def read(root, split="train", size=8):
    return load(Folder(root=str(root), size=size), split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_the_sorted_folder_names(root, split):
    images = read(root, split)
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.images.shape == (4, 3, 8, 8)
    assert images.images[:, 0, 0, 0].tolist() == [50, 51, 200, 201]


def test_val_stands_in_for_test(root):
    (root / "test").rename(root / "val")
    assert len(read(root, "test")) == 4


def test_images_are_brought_to_the_size(root):
    assert read(root, size=5).images.shape == (4, 3, 5, 5)
    with pytest.raises(UserError, match="at least 1 pixel"):
        read(root, size=0)


def test_files_count_at_any_depth_and_in_either_case(root, encode):
    deeper = root / "train" / "cat" / "images" / "more"
    deeper.mkdir(parents=True)
    (deeper / "X.JPEG").write_bytes(encode(np.zeros((8, 8), np.uint8), "JPEG"))
    assert read(root).labels.tolist() == [0, 0, 0, 1, 1]


def test_hidden_files_other_suffixes_and_loose_files_are_ignored(root):
    for name in ("cat/.hidden.png", "cat/notes.txt", "cat/model.npy", "cat/README", "loose.png"):
        (root / "train" / name).write_bytes(b"no image")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / ".thumbnails").mkdir()
    (root / "train" / "cat" / ".thumbnails" / "a.png").write_bytes(b"no image")
    (root / "train" / "cat" / "folder.png").mkdir()
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    images = read(root)
    assert images.classes == ("cat", "dog")
    assert len(images) == 4


def test_classes_may_be_linked_folders(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "cats"
    (root / "train" / "cat").rename(elsewhere)
    (root / "train" / "cat").symlink_to(elsewhere)
    assert len(read(root)) == 4


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"text"])
def test_a_file_that_is_no_image_is_named(root, content):
    (root / "train" / "dog" / "0.png").write_bytes(content)
    with pytest.raises(UserError, match=r"train/dog/0\.png .*repair or remove it"):
        read(root)


def test_a_truncated_image_is_named(root):
    path = root / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(UserError, match=r"train/dog/1\.png cannot be read as an image .*truncated"):
        read(root)


def test_an_empty_class_folder_is_named(root):
    for path in (root / "test" / "dog").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="test/dog has no images"):
        read(root, "test")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("of", ["train", "test"])
def test_a_class_in_only_one_split_is_named(root, split, of):
    (root / of / "emu").mkdir()
    with pytest.raises(UserError, match=r"the class 'emu' is only in one of .*train and .*test"):
        read(root, split)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_named(root, missing):
    (root / missing).rename(root / "other")
    with pytest.raises(UserError, match=r"(train|val) is missing: images are expected as train/CLASS/\*"):
        read(root)


def test_a_split_without_class_folders_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train has no class folders"):
        read(tmp_path)
