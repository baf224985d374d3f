import hashlib
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from regmix.data import Cifar10, Cifar100, ImageSet, cifar, load
from regmix.data.cifar_files import PIXELS, read_binary, read_python
from regmix.types import UserError

NOISE = np.random.RandomState(0).randint(0, 256, (20, PIXELS)).astype(np.uint8)
LABELS = list(range(10)) * 2


def python2_pickle(batch: dict[str, np.ndarray | list[int]]) -> bytes:
    """What Python 2 and the NumPy of 2009 wrote: the protocol and the globals of the official files."""
    out = io.BytesIO()

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)  # BININT

    out.write(b"\x80\x02}(")  # PROTO 2, EMPTY_DICT, MARK
    for key, value in batch.items():
        out.write(text(key.encode()))
        if isinstance(value, list):
            out.write(b"](" + b"".join(map(integer, value)) + b"e")
            continue
        out.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
        out.write(integer(0) + b"\x85" + text(b"b") + b"\x87R(" + integer(1))  # TUPLE1, TUPLE3, REDUCE, MARK
        out.write(integer(value.shape[0]) + integer(value.shape[1]) + b"\x86")  # TUPLE2
        out.write(b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R(")
        out.write(integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb")
        out.write(b"\x89" + text(value.tobytes()) + b"tb")  # not Fortran order, the bytes, BUILD
    out.write(b"u.")
    return out.getvalue()


def write_official(folder: Path, names: list[str], content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes files of official names and declares their digest official."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(cifar.DIGESTS, name, "md5:" + digest)


def rows_of(images: ImageSet) -> bytes:
    """The images laid out as an official binary batch."""
    labels = images.labels[:, None].to(torch.uint8)
    return torch.cat([labels, images.images.flatten(1)], dim=1).numpy().tobytes()


@pytest.mark.real_data
def test_the_real_test_split(cifar10_test):
    assert cifar10_test.images.shape == (10_000, 3, 32, 32)
    assert cifar10_test.labels.bincount().tolist() == [1000] * 10
    assert cifar10_test.classes[0] == "airplane"
    assert cifar10_test.classes[9] == "truck"
    assert hashlib.sha1(rows_of(cifar10_test)).hexdigest().startswith("67eb016d")


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_train_split_also_from_the_official_files(shared, tmp_path, monkeypatch):
    train = load(Cifar10(root=str(shared / "cifar10")), "train")
    assert train.images.shape == (50_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10

    parts = [train.subset(index) for index in torch.arange(50_000).split(10_000)]
    starts = ["aadd24ac", "c0ba65cc", "1dd00a74", "aab85764", "26e2849e"]
    assert [hashlib.sha1(rows_of(part)).hexdigest()[:8] for part in parts] == starts

    for i, part in enumerate(parts, start=1):
        binary = tmp_path / "binary" / "cifar-10-batches-bin"
        binary.mkdir(parents=True, exist_ok=True)
        (binary / f"data_batch_{i}.bin").write_bytes(rows_of(part))
        content = python2_pickle({"data": part.images.flatten(1).numpy(), "labels": part.labels.tolist()})
        write_official(tmp_path / "python" / "cifar-10-batches-py", [f"data_batch_{i}"], content, monkeypatch)
    for kind in ("binary", "python"):
        again = load(Cifar10(root=str(tmp_path / kind)), "train")
        assert torch.equal(again.images, train.images)
        assert torch.equal(again.labels, train.labels)
        assert again.classes == train.classes


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
def test_cifar10_python_files(tmp_path, monkeypatch, folder):
    content = python2_pickle({"data": NOISE, "labels": LABELS})
    names = [f"data_batch_{i}" for i in range(1, 6)]
    write_official(tmp_path / folder, names, content, monkeypatch)
    images = load(Cifar10(root=str(tmp_path)), "train")
    assert torch.equal(images.images, torch.from_numpy(NOISE).reshape(-1, 3, 32, 32).repeat(5, 1, 1, 1))
    assert images.labels.tolist() == LABELS * 5


def test_cifar100_python_files_use_the_fine_labels(tmp_path, monkeypatch):
    fine = [5 * label for label in range(20)]
    content = python2_pickle({"data": NOISE, "coarse_labels": list(range(20)), "fine_labels": fine})
    write_official(tmp_path / "cifar-100-python", ["test"], content, monkeypatch)
    images = load(Cifar100(root=str(tmp_path)), "test")
    assert images.labels.tolist() == fine
    assert len(set(images.classes)) == 100
    assert images.classes[99] == "worm"


def test_cifar100_binary_files_use_the_fine_labels(tmp_path):
    coarse, fine = np.arange(10_000) % 20, np.arange(10_000) % 100
    pixels = np.tile(NOISE, (500, 1))
    rows = np.concatenate([coarse[:, None], fine[:, None], pixels], axis=1).astype(np.uint8)
    (tmp_path / "test.bin").write_bytes(rows.tobytes())
    images = load(Cifar100(root=str(tmp_path)), "test")
    assert images.labels.tolist() == fine.tolist()
    assert np.array_equal(images.images.flatten(1).numpy(), pixels)


def test_official_names_must_have_the_official_content(tmp_path):
    (tmp_path / "test_batch").write_bytes(python2_pickle({"data": NOISE, "labels": LABELS}))
    with pytest.raises(UserError, match=r"test_batch is not the official file .*md5.*fetch it again"):
        load(Cifar10(root=str(tmp_path)), "test")


def test_binary_files_of_cifar10_must_have_the_official_content(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes(10_000 * 3073))
    with pytest.raises(UserError, match=r"test_batch\.bin is not the official file .*sha1"):
        load(Cifar10(root=str(tmp_path)), "test")


@pytest.mark.parametrize("size", [0, 3073, 3 * 3073 - 1])
def test_binary_files_must_have_the_right_size(size):
    with pytest.raises(UserError, match=rf"x\.bin has {size} bytes instead of 2 x 3073"):
        read_binary(Path("x.bin"), bytes(size), label_bytes=1, rows=2)


@pytest.mark.parametrize("label", [10, -1])
def test_labels_out_of_range_are_named(tmp_path, monkeypatch, label):
    content = python2_pickle({"data": NOISE, "labels": [*LABELS[:19], label]})
    write_official(tmp_path, ["test_batch"], content, monkeypatch)
    with pytest.raises(UserError, match=rf"test_batch row 19: the label {label} is outside of 0\.\.9"):
        load(Cifar10(root=str(tmp_path)), "test")


@pytest.mark.parametrize("config", [Cifar10, Cifar100])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_root_says_what_was_looked_for_and_how_to_get_it(tmp_path, config, split):
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=rf"{root}.*parquet; add --data\.download, or unpack https://"):
            load(config(root=str(root)), split)


def test_a_missing_batch_is_named(tmp_path):
    (tmp_path / "data_batch_2").write_bytes(b"")
    with pytest.raises(UserError, match=r"data_batch_1 is missing"):
        load(Cifar10(root=str(tmp_path)), "train")


class Malicious:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (os.system, ("touch hacked",), r"posix\.system|nt\.system"),
        (eval, ("open('hacked', 'w')",), r"(__builtin__|builtins)\.eval"),
        (getattr, ("text", "upper"), r"(__builtin__|builtins)\.getattr"),
        (np.load, ("hacked",), r"numpy\.load"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_could_run_code_is_refused(tmp_path, monkeypatch, call, arguments, name, protocol):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"data": Malicious(call, *arguments), "labels": []}, protocol)
    with pytest.raises(UserError, match=rf"^bad is refused: it asks for ({name}), which is not data"):
        read_python(Path("bad"), content, "labels")
    assert not list(tmp_path.iterdir())


def test_only_arrays_of_pixels_are_built():
    content = python2_pickle({"data": NOISE, "labels": LABELS})
    with pytest.raises(UserError, match=r"^bad is refused: it holds an array of 'O8'"):
        read_python(Path("bad"), content.replace(b"T\x02\x00\x00\x00u1", b"T\x02\x00\x00\x00O8"), "labels")


def test_nested_names_cannot_smuggle_an_allowed_module():
    # Protocol 4 resolves dotted names attribute by attribute.
    content = b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93."
    with pytest.raises(UserError, match=r"numpy\.ndarray\.__init__"):
        read_python(Path("bad"), content, "labels")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        python2_pickle({"data": NOISE, "labels": LABELS})[:-100],
        pickle.dumps([1, 2, 3]),
        python2_pickle({"data": NOISE}),
        python2_pickle({"labels": LABELS}),
        python2_pickle({"data": NOISE, "labels": LABELS[:-1]}),
        python2_pickle({"data": NOISE[:, :-1], "labels": LABELS}),
        python2_pickle({"data": NOISE, "labels": LABELS}).replace(b"J\x14", b"J\x15", 1),  # a row too many
        b"\x80\x02}(T\x04\x00\x00\x00datacnumpy\nndarray\n)RT\x06\x00\x00\x00labels]u.",  # an array without content
        pickle.dumps({"data": [1, 2], "labels": [1, 2]}),
        pickle.dumps({"data": 5, "labels": [1]}),
        pickle.dumps({"data": None, "labels": ["cat"]}),
    ],
)
def test_damaged_pickles_are_named(content):
    with pytest.raises(UserError, match=r"^some_batch "):
        read_python(Path("some_batch"), content, "labels")
