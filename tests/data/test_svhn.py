import hashlib
import io

import numpy as np
import pytest
import scipy.io
import torch

from regmix.data import Svhn, load, svhn
from regmix.types import UserError

PIXELS = np.random.RandomState(0).randint(0, 256, (12, 32, 32, 3)).astype(np.uint8)
LABELS = np.array([[10], [1], [2], [3], [4], [5], [6], [7], [8], [9], [10], [1]], np.uint8)


def content(**changed) -> bytes:
    """A .mat file as the official ones are: compressed, X [32, 32, 3, N] and y [N, 1], both uint8."""
    stream = io.BytesIO()
    arrays = {"X": PIXELS.transpose(1, 2, 3, 0), "y": LABELS} | changed
    scipy.io.savemat(stream, {name: value for name, value in arrays.items() if value is not None}, do_compression=True)
    return stream.getvalue()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a test split and declares its digest official."""

    def write(data: bytes) -> Svhn:
        (tmp_path / "test_32x32.mat").write_bytes(data)
        monkeypatch.setitem(svhn.MD5, "test", hashlib.md5(data, usedforsecurity=False).hexdigest())
        return Svhn(root=str(tmp_path))

    return write


def test_images_and_labels_with_10_as_the_digit_0(write):
    images = load(write(content()), "test")
    assert torch.equal(images.images, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert images.images.is_contiguous()
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert images.classes == tuple("0123456789")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_file_says_how_to_get_it(tmp_path, split):
    with pytest.raises(UserError, match=rf"{split}_32x32\.mat is missing; add --data\.download, or put http://"):
        load(Svhn(root=str(tmp_path / "absent")), split)


def test_the_official_names_must_have_the_official_content(tmp_path):
    (tmp_path / "train_32x32.mat").write_bytes(content())
    with pytest.raises(UserError, match=r"train_32x32\.mat is not the official file .*md5.*fetch it again"):
        load(Svhn(root=str(tmp_path)), "train")


@pytest.mark.parametrize("data", [b"", b"not a matrix", content()[:-500], content(X=None), content(y=None)])
def test_a_damaged_file_is_named(write, data):
    with pytest.raises(UserError, match=r"test_32x32\.mat cannot be read"):
        load(write(data), "test")


@pytest.mark.parametrize(
    "changed",
    [{"X": PIXELS}, {"X": PIXELS.transpose(1, 2, 3, 0).astype(np.float64)}, {"y": LABELS[:-1]}],
)
def test_other_arrays_are_refused(write, changed):
    with pytest.raises(UserError, match=r"test_32x32\.mat must hold X uint8"):
        load(write(content(**changed)), "test")


@pytest.mark.parametrize("label", [0, 11])
def test_a_label_out_of_range_is_named(write, label):
    labels = LABELS.copy()
    labels[3] = label
    with pytest.raises(UserError, match=rf"test_32x32\.mat row 3: the label {label} is outside of 1\.\.10"):
        load(write(content(y=labels)), "test")


def test_a_missing_file_is_downloaded_once(tmp_path, monkeypatch):
    asked, data = [], content()  # made once: a .mat file holds the second in which it was written

    def fetch(url, target, md5):
        asked.append((url, md5))
        target.write_bytes(data)

    monkeypatch.setattr(svhn, "fetch", fetch)
    monkeypatch.setitem(svhn.MD5, "train", hashlib.md5(data, usedforsecurity=False).hexdigest())
    source = Svhn(root=str(tmp_path / "new" / "folder"), download=True)
    assert len(load(source, "train")) == len(load(source, "train")) == 12
    assert asked == [("http://ufldl.stanford.edu/housenumbers/train_32x32.mat", svhn.MD5["train"])]
