import io
import pickle

import numpy as np
import pytest
import torch

from regmix.data import Imagenet32, imagenet32, load
from regmix.types import UserError

NOISE = np.random.RandomState(0).randint(0, 256, (30, 3072)).astype(np.uint8)
LABELS = [1, 1000, *range(2, 30)]
MEAN = NOISE.mean(0)


def pickled(batch: dict, old: bool = True) -> bytes:
    """A batch as the official ones are: protocol 3, with the name that NumPy's module had until version 2."""
    content = pickle.dumps(batch, protocol=3)
    return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n") if old else content


def npz(batch: dict) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **batch)
    return stream.getvalue()


def write(folder, make=pickled, suffix="", **changed) -> None:
    """Ten training batches of three images each, and the test batch of all 30."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(10):
        part = slice(3 * number, 3 * number + 3)
        batch = {"data": NOISE[part], "labels": LABELS[part], "mean": MEAN}
        (folder / f"train_data_batch_{number + 1}{suffix}").write_bytes(make(batch))
    (folder / f"val_data{suffix}").write_bytes(make({"data": NOISE, "labels": LABELS} | changed))


@pytest.mark.parametrize(
    ("make", "suffix"), [(pickled, ""), (lambda batch: pickled(batch, old=False), ""), (npz, ".npz")]
)
def test_both_formats_in_the_official_order(tmp_path, make, suffix):
    write(tmp_path, make, suffix)
    for split in ("train", "test"):
        images = load(Imagenet32(root=str(tmp_path)), split)
        assert torch.equal(images.images, torch.from_numpy(NOISE).view(-1, 3, 32, 32))
        assert images.labels.tolist() == [label - 1 for label in LABELS]
        assert images.classes[0] == "1"
        assert images.classes[999] == "1000"
        (note,) = images.notes
        assert "has 30 of the" in note


@pytest.mark.parametrize("folders", [("Imagenet32_train", "Imagenet32_val"), ("Imagenet32_train_npz",)])
def test_the_folders_of_the_archives_are_found(tmp_path, folders):
    for folder in folders:
        write(tmp_path / folder, *((npz, ".npz") if folder.endswith("npz") else ()))
    assert len(load(Imagenet32(root=str(tmp_path)), "train")) == 30


def test_a_whole_split_has_no_note(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(imagenet32.IMAGES, "test", 30)
    assert load(Imagenet32(root=str(tmp_path)), "test").notes == ()


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_root_says_what_was_looked_for_and_how_to_get_it(tmp_path, split):
    with pytest.raises(UserError, match=r"is not in .*nowhere: looked .*\.npz; download .*zip from https://"):
        load(Imagenet32(root=str(tmp_path / "nowhere")), split)


def test_a_missing_batch_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "train_data_batch_10").unlink()
    with pytest.raises(UserError, match=r"train_data_batch_10 is missing; unpack Imagenet32_train\.zip"):
        load(Imagenet32(root=str(tmp_path)), "train")


@pytest.mark.parametrize(
    "changed",
    [
        {"data": NOISE[:, :-1]},
        {"data": NOISE.astype(np.float64)},
        {"labels": LABELS[:-1]},
        {"labels": [*LABELS[:-1], 0]},
        {"labels": [*LABELS[:-1], 1001]},
        {"data": 5},
    ],
)
@pytest.mark.parametrize(("make", "suffix"), [(pickled, ""), (npz, ".npz")])
def test_a_wrong_batch_is_named(tmp_path, make, suffix, changed):
    write(tmp_path, make, suffix, **changed)
    with pytest.raises(UserError, match=rf"val_data{suffix} (is no batch|row 29: the label|cannot be read)"):
        load(Imagenet32(root=str(tmp_path)), "test")


@pytest.mark.parametrize(("make", "suffix"), [(pickled, ""), (npz, ".npz")])
@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_cut_file_is_named(tmp_path, make, suffix, keep):
    write(tmp_path, make, suffix)
    path = tmp_path / f"val_data{suffix}"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"val_data{suffix} cannot be read"):
        load(Imagenet32(root=str(tmp_path)), "test")


def test_files_that_could_run_code_are_refused(tmp_path):
    write(tmp_path, npz, ".npz", labels=np.array(LABELS, dtype=object))
    with pytest.raises(UserError, match=r"val_data\.npz cannot be read .*allow_pickle"):
        load(Imagenet32(root=str(tmp_path)), "test")
    (tmp_path / "val_data").write_bytes(pickle.dumps({"data": print, "labels": LABELS}, protocol=3))
    with pytest.raises(UserError, match=r"val_data is refused: it asks for .*print"):
        load(Imagenet32(root=str(tmp_path)), "test")
