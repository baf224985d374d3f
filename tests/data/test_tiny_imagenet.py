import shutil

import numpy as np
import pytest

from regmix.data import TinyImagenet, load
from regmix.data.download import unpack
from regmix.types import UserError

WNIDS = ["n02000000", "n01000000"]


@pytest.fixture
def root(tmp_path, encode):
    """Two classes of three train and two val images, all of one grey value each."""
    base = tmp_path / "tiny-imagenet-200"
    (base / "val" / "images").mkdir(parents=True)
    annotations = ""
    for k, wnid in enumerate(WNIDS):
        images = base / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(3):
            with (images.parent / f"{wnid}_boxes.txt").open("a") as boxes:
                boxes.write(f"{wnid}_{i}.JPEG\t0\t0\t62\t62\n")
            (images / f"{wnid}_{i}.JPEG").write_bytes(encode(np.full((64, 64), 100 * k + i, np.uint8), "JPEG"))
        for i in range(2):
            name = f"val_{2 * i + k}.JPEG"
            pixels = np.full((64, 64, 3), 100 * k + 10 + i, np.uint8)
            (base / "val" / "images" / name).write_bytes(encode(pixels, "JPEG"))
            annotations += f"{name}\t{wnid}\t0\t0\t62\t62\n"
    (base / "val" / "val_annotations.txt").write_text(annotations)
    (base / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (base / "words.txt").write_text("n00000000\tentity\nn01000000\tgoldfish, Carassius\nn02000000\ttoad\n")
    return base


@pytest.mark.parametrize("outer", [True, False])
def test_classes_are_the_sorted_wnids(root, outer):
    train = load(TinyImagenet(root=str(root.parent if outer else root)), "train")
    assert train.classes == ("goldfish", "toad")
    assert train.images.shape == (6, 3, 64, 64)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.images[:, 0, 0, 0].tolist() == [100, 101, 102, 0, 1, 2]


def test_the_test_split_is_the_official_val(root):
    test = load(TinyImagenet(root=str(root)), "test")
    assert test.labels.tolist() == [1, 1, 0, 0]
    assert test.images[:, 0, 0, 0].tolist() == [10, 11, 110, 111]


def test_a_missing_root_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"wnids\.txt.*add --data\.download, or unpack http://"):
        load(TinyImagenet(root=str(tmp_path / "absent")), "train")


def test_a_class_without_images_is_named(root):
    shutil.rmtree(root / "train" / WNIDS[1])
    with pytest.raises(UserError, match=r"n01000000/images has no \.JPEG files"):
        load(TinyImagenet(root=str(root)), "train")


@pytest.mark.parametrize("name", ["words.txt", "val/val_annotations.txt", "val/images/val_1.JPEG"])
def test_a_missing_file_is_named(root, name):
    (root / name).unlink()
    with pytest.raises(UserError, match=name):
        load(TinyImagenet(root=str(root)), "test")


def test_a_missing_training_image_is_named(root):
    (root / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_1.JPEG").unlink()
    with pytest.raises(UserError, match=r"n02000000/images/n02000000_1\.JPEG is missing; unpack http://"):
        load(TinyImagenet(root=str(root)), "train")


def test_test_images_that_a_cut_list_leaves_out_are_named(root):
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("".join(annotations.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"val_annotations\.txt does not name val_3\.JPEG"):
        load(TinyImagenet(root=str(root)), "test")


@pytest.mark.parametrize("lines", [WNIDS[:1], [*WNIDS, WNIDS[0]], [*WNIDS, ""]])
def test_a_wrong_list_of_classes_is_refused(root, lines):
    (root / "wnids.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"wnids\.txt"):
        load(TinyImagenet(root=str(root)), "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_1.JPEG", r"val_annotations\.txt line 5 must start with an image and a wnid"),
        ("val_1.JPEG\tn01000000\t0", r"val_annotations\.txt names val_1\.JPEG twice"),
        ("../../secret.png\tn01000000", r"val_annotations\.txt line 5"),
        ("val_1.JPEG\tn09999999\t0", r"val_1\.JPEG belongs to n09999999, which is not in .*wnids\.txt"),
    ],
)
def test_wrong_annotations_are_named(root, line, message):
    with (root / "val" / "val_annotations.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        load(TinyImagenet(root=str(root)), "test")


def test_images_of_another_size_are_refused(root, encode):
    for path in (root / "val" / "images").iterdir():
        path.write_bytes(encode(np.zeros((32, 32, 3), np.uint8), "JPEG"))
    with pytest.raises(UserError, match="are not 64x64"):
        load(TinyImagenet(root=str(root)), "test")


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_images(shared, tmp_path):
    unpack(shared / "tiny-imagenet-20-classes.tar", tmp_path)
    train = load(TinyImagenet(root=str(tmp_path)), "train")
    test = load(TinyImagenet(root=str(tmp_path)), "test")
    assert train.images.shape == (10_000, 3, 64, 64)
    assert test.images.shape == (1000, 3, 64, 64)
    assert train.labels.bincount().tolist() == [500] * 20
    assert test.labels.bincount().tolist() == [50] * 20
    assert train.classes == test.classes
    assert train.classes[0] == "goldfish"
    # A few are grey: their three channels are equal.
    grey = (train.images.amax(dim=1) == train.images.amin(dim=1)).flatten(1).all(dim=1).sum()
    assert 0 < grey < 500
