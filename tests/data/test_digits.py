import hashlib

import numpy as np
import pytest
import torch

from regmix.data import Digits, digits, digits_file, load

load_digits = pytest.importorskip("sklearn.datasets").load_digits


def test_the_two_splits_are_the_whole_set_without_overlap():
    train, test = load(Digits(), "train"), load(Digits(), "test")
    assert train.images.shape == (1297, 1, 8, 8)
    assert test.images.shape == (500, 1, 8, 8)
    both = torch.cat([train.images, test.images]).flatten(1)
    source = torch.from_numpy(load_digits().data)
    expected = (source * 255 / 16).round().to(torch.uint8)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, expected.tolist()))


def test_the_file_holds_what_its_script_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(digits_file, "FILE", tmp_path / "digits.npz")
    digits_file.main()
    for name, expected in (("images", load_digits().images), ("labels", load_digits().target)):
        kept, again = (np.load(file)[name] for file in (digits.FILE, tmp_path / "digits.npz"))
        assert kept.dtype == np.uint8
        assert np.array_equal(kept, expected)
        assert np.array_equal(kept, again)


def test_grey_values_span_black_to_white():
    images = load(Digits(), "train").images
    assert (images.min(), images.max()) == (0, 255)
    assert len(images.unique()) == 17


def test_the_split_is_stratified():
    for split in ("train", "test"):
        images = load(Digits(), split)
        share = images.labels.bincount(minlength=10) / len(images)
        assert images.classes == tuple("0123456789")
        assert (share - 0.1).abs().max() < 0.005


def test_the_split_never_changes():
    images = load(Digits(), "test")
    digest = hashlib.sha256(images.images.numpy().tobytes() + images.labels.numpy().tobytes())
    assert digest.hexdigest()[:16] == "6dfc51ac282dc702"
