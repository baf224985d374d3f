import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from regmix.data import Cifar10, Cifar100, Parquet, load
from regmix.data.cifar import CIFAR10
from regmix.data.parquet import read_parquet
from regmix.data.row_groups import Disk
from regmix.types import UserError

NOISE = np.random.RandomState(0).randint(0, 256, (7, 32, 32, 3)).astype(np.uint8)
LABELS = [3, 1, 4, 1, 5, 9, 2]
CLASSES = CIFAR10.classes


def read(path: Path, image: list[str], label: list[str], classes: tuple[str, ...] | None = None):
    return read_parquet([str(path)], image, label, classes, store=Disk(path.parent))


@pytest.fixture
def write(encode):
    """Writes a file in the layout of the Hugging Face hub."""

    def write(path: Path, images=NOISE, labels=LABELS, names=None, image="img", label="label") -> Path:
        contents = [None if pixels is None else {"bytes": encode(pixels), "path": None} for pixels in images]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({image: pa.array(contents, kind), label: pa.array(labels)})
        if names:
            features = {label: {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path

    return write


def test_pixels_and_labels_come_back(tmp_path, write):
    images = read(write(tmp_path / "a.parquet"), ["image", "img"], ["label"], tuple("abcdefghij"))
    assert torch.equal(images.images, torch.from_numpy(NOISE).permute(0, 3, 1, 2))
    assert images.labels.tolist() == LABELS


def test_class_names_come_from_the_metadata(tmp_path, write):
    path = write(tmp_path / "a.parquet", names=[f"name {i}" for i in range(10)])
    assert read(path, ["img"], ["label"]).classes[9] == "name 9"
    with pytest.raises(UserError, match=r"b\.parquet does not name the classes"):
        read(write(tmp_path / "b.parquet"), ["img"], ["label"])


def test_images_may_be_plain_binary(tmp_path, encode):
    for i, kind in enumerate((pa.binary(), pa.large_binary())):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(pa.table({"x": pa.array([encode(NOISE[0])], kind), "y": pa.array([0], pa.uint8())}), path)
        assert read(path, ["x"], ["y"], ("a",)).images.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("folder", ["", "plain_text"])
def test_cifar10_reads_several_files_in_order(tmp_path, write, folder):
    write(tmp_path / folder / "train-00001-of-00002.parquet", NOISE[3:], LABELS[3:])
    write(tmp_path / folder / "train-00000-of-00002.parquet", NOISE[:3], LABELS[:3])
    images = load(Cifar10(root=str(tmp_path)), "train")
    assert images.labels.tolist() == LABELS
    assert torch.equal(images.images, torch.from_numpy(NOISE).permute(0, 3, 1, 2))


def test_cifar100_reads_fine_labels(tmp_path, write):
    write(tmp_path / "test-00000-of-00001.parquet", labels=[99] * 7, label="fine_label")
    assert load(Cifar100(root=str(tmp_path)), "test").labels.tolist() == [99] * 7


def test_a_missing_part_is_named(tmp_path, write):
    write(tmp_path / "train-00001-of-00003.parquet")
    write(tmp_path / "train-00002-of-00003.parquet")
    with pytest.raises(UserError, match=r"train-00000-of-00003\.parquet is missing"):
        load(Cifar10(root=str(tmp_path)), "train")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["00-of-03", "01-of-03"], r"train-00002-of-00003\.parquet is missing; train-0000\d-of-00003\.parquet is one"),
        (["01-of-04", "00-of-02", "01-of-02"], r"belong to two sets, of 0000[24] and 0000[24] files"),
        (["00-of-02", "01-of-02", "02-of-02"], r"train-00002-of-00002\.parquet is one file too many"),
        (
            ["00-of-01", "00-of-01 (1)"],
            r"\(1\)\.parquet does not belong to the numbered files such as train-00000-of-00001\.parquet",
        ),
        (["00-of-01", "00-of-01-copy"], r"copy\.parquet does not belong to the numbered files"),
        (["00-of-02-0a1b", "00-of-02-ffff"], r"is one file too many beside train-00000-of-00002-0a1b\.parquet"),
        (["00-of-02-0a1b2c3d4e5f"], r"train-00001-of-00002-\*\.parquet is missing"),
        (["00-of-04", "01-of-04", "03-of-04"], r"train-00002-of-00004\.parquet is missing"),
    ],
)
@pytest.mark.parametrize("source", [Cifar10, Parquet])
def test_files_that_are_not_one_whole_set_are_refused(tmp_path, write, source, there, message):
    for name in there:
        number, rest = name.split("-of-")
        write(tmp_path / f"train-000{number}-of-000{rest}.parquet", names=list("abcdefghij"))
    with pytest.raises(UserError, match=message):
        load(source(root=str(tmp_path), **({"image_column": "img"} if source is Parquet else {})), "train")


def test_copies_in_another_folder_are_refused(tmp_path, write):
    for folder in ("large", "small"):
        write(tmp_path / folder / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"large/train-\S+ and \S+small/train-\S+ have the same name"):
        load(Parquet(root=str(tmp_path), image_column="img"), "train")


def test_files_whose_names_end_in_a_hash_are_one_set(tmp_path, write):
    for name in ("train-00000-of-00002-0a1b2c.parquet", "train-00001-of-00002-99ffee.parquet"):
        write(tmp_path / name)
    assert len(load(Cifar10(root=str(tmp_path)), "train")) == 14


def test_files_must_agree_about_the_classes(tmp_path, write):
    names = list("abcdefghij")
    write(tmp_path / "train-0.parquet", names=names)
    write(tmp_path / "train-1.parquet", names=["b", "a", *names[2:]])
    write(tmp_path / "test-0.parquet", names=names)
    source = Parquet(root=str(tmp_path), image_column="img")
    with pytest.raises(UserError, match=r"train-1\.parquet: label 0 is 'b', but 'a' in the other files"):
        load(source, "train")
    write(tmp_path / "train-1.parquet", names=names)
    assert len(load(source, "train")) == 14
    write(tmp_path / "test-0.parquet", NOISE[:1], LABELS[:1], names=names[:-1])
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"label 9 is .* in the other files"):
            load(source, split)
    (tmp_path / "test-0.parquet").unlink()
    assert len(load(source, "train")) == 14, "there may be no others"


def test_cifar_in_another_order_of_classes_is_refused(tmp_path, write):
    names = [*CLASSES]
    write(tmp_path / "test-0.parquet", names=[*names[:9], "lorry"])
    assert load(Cifar10(root=str(tmp_path)), "test").classes == CLASSES, "another spelling"
    write(tmp_path / "test-0.parquet", names=[*names[:8], "truck", "ship"])
    with pytest.raises(UserError, match=r"label 8 is 'truck', but 'ship' in"):
        load(Cifar10(root=str(tmp_path)), "test")


def test_a_part_of_cifar_is_reported(tmp_path, write):
    write(tmp_path / "train-0.parquet")
    (note,) = load(Cifar10(root=str(tmp_path)), "train").notes
    assert note == f"{tmp_path} has 7 of the 50000 images of CIFAR-10's train split"


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_out_of_range_is_named_with_its_row(tmp_path, write, label):
    write(tmp_path / "test-x.parquet", labels=[*LABELS[:5], label, 0])
    with pytest.raises(UserError, match=rf"test-x\.parquet row 5: the label {label} is outside of 0\.\.9"):
        load(Cifar10(root=str(tmp_path)), "test")


def test_a_missing_image_is_named_with_its_row(tmp_path, write):
    write(tmp_path / "test-x.parquet", images=[NOISE[0], None], labels=[0, 1])
    with pytest.raises(UserError, match=r"test-x\.parquet row 1: .* no image"):
        load(Cifar10(root=str(tmp_path)), "test")


def test_a_broken_image_is_named_with_its_row(tmp_path):
    path = tmp_path / "test-x.parquet"
    pq.write_table(pa.table({"img": [b"broken"], "label": [0]}), path)
    with pytest.raises(UserError, match=r"test-x\.parquet row 0 is not an image"):
        load(Cifar10(root=str(tmp_path)), "test")


def test_a_missing_label_is_refused(tmp_path, write):
    write(tmp_path / "test-x.parquet", labels=[None, *LABELS[1:]])
    with pytest.raises(UserError, match=r"test-x\.parquet row 0: column label must hold one integer per row"):
        load(Cifar10(root=str(tmp_path)), "test")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b""], "label": [0]}, "no column img or image; it has picture, label"),
        ({"img": [b""], "y": [0]}, "no column label"),
        ({"img": ["text"], "label": [0]}, "column img must hold encoded images, not string"),
        ({"img": [b""], "label": ["cat"]}, "column label must hold one integer per row, not string"),
        ({"img": [b""], "label": [0.5]}, "column label must hold one integer per row, not double"),
    ],
)
def test_wrong_columns_are_named(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "test-x.parquet")
    with pytest.raises(UserError, match=message):
        load(Cifar10(root=str(tmp_path)), "test")


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"\x00" * 1000])
def test_files_that_are_not_parquet_are_named(tmp_path, content):
    (tmp_path / "test-x.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"test-x\.parquet cannot be read as parquet"):
        load(Cifar10(root=str(tmp_path)), "test")


def test_a_file_without_rows_is_an_error(tmp_path, write):
    write(tmp_path / "test-x.parquet", images=[], labels=np.zeros(0, dtype=np.int64))
    with pytest.raises(UserError, match="no images"):
        load(Cifar10(root=str(tmp_path)), "test")
