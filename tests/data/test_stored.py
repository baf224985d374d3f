"""Images that are decoded when they are looked at are the images that would lie in memory."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regmix.data import Folder, Hub, ImageSet, Loader, Parquet, batches, load, row_groups, split_train
from regmix.data.stored import WINDOW, Stored
from regmix.types import UserError

CLASSES = ["cat", "dog", "eel"]


def noise(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, side, side, 3)).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Folder:
    """Files of several sizes, 40 for training and 9 for testing."""
    for split, each in (("train", [20, 12, 8]), ("test", [3, 3, 3])):
        for label, (name, count) in enumerate(zip(CLASSES, each, strict=True)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = noise(1, 8 + (i % 3) * 5, seed=100 * label + i)[0]
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i:03}.png")
    return Folder(root=str(tmp_path), size=8)


@pytest.fixture
def shards(tmp_path: Path, encode) -> Parquet:
    """Two files of 20 rows for training, in groups of 6, and one for testing."""
    features = {"label": {"names": CLASSES, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for number, name in enumerate(
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet")
    ):
        contents = [{"bytes": encode(pixels), "path": None} for pixels in noise(20, seed=number)]
        labels = [(i * i + number) % 3 for i in range(20)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(contents, kind), "label": pa.array(labels)})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "data" / name, row_group_size=6)
    return Parquet(root=str(tmp_path))


@pytest.fixture(params=["photos", "shards"])
def source(request: pytest.FixtureRequest) -> Folder | Parquet:
    found: Folder | Parquet = request.getfixturevalue(request.param)
    return found


def streamed(source: Folder | Parquet | Hub) -> Folder | Parquet | Hub:
    return replace(source, stream=True)


@pytest.mark.real_data
def test_real_shards_are_streamed_as_they_are_read(shared, cifar10_test):
    """CIFAR-10's own parquet, ten groups of a thousand rows: more than a window."""
    source = Parquet(root=str(shared / "cifar10"), image_column="img", stream=True)
    images = load(source, "test")
    assert torch.equal(images.labels, cifar10_test.labels)
    assert images.classes == cifar10_test.classes
    seen = 0
    for batch in Loader(images, 500, "cpu", pad=0, flip=False, seed=0).epoch(1):
        assert torch.equal(batch.x, cifar10_test.images[batch.index].float() / 255)
        assert torch.equal(batch.y, cifar10_test.labels[batch.index])
        seen += len(batch.x)
    assert seen == len(images) == 10_000


@pytest.mark.parametrize("split", ["train", "test"])
def test_pixels_labels_and_classes_are_the_same(source, split):
    here, there = load(source, split), load(streamed(source), split)
    assert isinstance(there.images, Stored)
    assert there.images.shape == here.images.shape
    assert torch.equal(there.pixels(), here.images)
    assert torch.equal(there.labels, here.labels)
    assert there.classes == here.classes == tuple(CLASSES)
    some = torch.tensor([7, 0, 7])
    assert torch.equal(there.images[some], here.images[some])
    assert torch.equal(there.subset(some).pixels(), here.images[some])
    assert len(there.subset(torch.arange(0)).pixels()) == 0


def test_splits_batches_and_statistics_are_the_same(source):
    here, there = load(source, "train"), load(streamed(source), "train")
    for one, other in zip(split_train(here, 20, 9, seed=3), split_train(there, 20, 9, seed=3), strict=True):
        assert torch.equal(one.images, other.pixels())
        assert torch.equal(one.labels, other.labels)
    for one, other in zip(batches(here, 7, "cpu"), batches(there, 7, "cpu"), strict=True):
        assert torch.equal(one.x, other.x)
        assert one.x.stride() == other.x.stride()
    assert here.mean_and_deviation() == there.mean_and_deviation()
    pixels = here.images.double() / 255
    mean, deviation = here.mean_and_deviation()
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert deviation == pytest.approx(pixels.transpose(0, 1).flatten(1).std(1).tolist(), rel=1e-12)


@pytest.mark.parametrize("options", [{"pad": 2, "flip": True}, {"pad": 0, "flip": False}])
@pytest.mark.parametrize("share", [{}, {"rank": 1, "size": 2}, {"replays": 3}])
def test_an_epoch_is_the_same(source, options, share):
    """Sets of up to WINDOW images are shuffled as a whole, so that streaming changes no bit of a training."""
    here, there = (
        Loader(load(which, "train"), 7, "cpu", seed=5, **options, **share) for which in (source, streamed(source))
    )
    for number, first in ((0, 0), (4, 2)):
        ours, theirs = [*there.epoch(number, first)], [*here.epoch(number, first)]
        assert len(ours) == len(theirs) == len(here) - first
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.x, other.x)
            assert one.x.stride() == other.x.stride()
            assert torch.equal(one.y, other.y)
            assert torch.equal(one.index, other.index)
            assert one.weight == other.weight
            assert (one.view is None) == (other.view is None)
            assert one.view is None or all(map(torch.equal, one.view[:3], other.view[:3]))


def test_the_threads_end_with_the_epoch_even_if_it_is_left_early(source):
    before = threading.active_count()
    loader = Loader(load(streamed(source), "train"), 4, "cpu", pad=0, flip=False, seed=0)
    list(loader.epoch(0))
    left = loader.epoch(1)
    next(left)
    left.close()
    assert threading.active_count() == before


def test_replayed_batches_are_decoded_once(photos, monkeypatch):
    seen = []
    real = Stored.__getitem__
    monkeypatch.setattr(Stored, "__getitem__", lambda self, index: (seen.append(len(index)), real(self, index))[1])
    loader = Loader(load(streamed(photos), "train"), 8, "cpu", pad=0, flip=False, seed=0, replays=5)
    assert len([batch for number in range(5) for batch in loader.epoch(number)]) == 25
    assert len(seen) <= 5 + 4  # a batch that straddles two epochs is decoded in both


def test_a_damaged_image_is_named_when_its_batch_is_due(photos):
    images = load(streamed(photos), "train")
    broken = Path(photos.root) / "train" / "dog" / "003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=r"dog/003\.png .*repair or remove it"):
        list(Loader(images, 4, "cpu", pad=0, flip=False, seed=0).epoch(0))
    with pytest.raises(UserError, match=r"dog/003\.png .*repair or remove it"):
        load(photos, "train")


def test_an_image_of_another_size_is_named_when_its_batch_is_due(tmp_path, encode):
    for name, sides in (("train-0.parquet", (8, 8, 9)), ("test-0.parquet", (8,))):
        contents = [encode(noise(1, side)[0]) for side in sides]
        table = pa.table({"image": contents, "label": [0] * len(sides)})
        names = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a"]}}}})}
        pq.write_table(table.replace_schema_metadata(names), tmp_path / name)
    images = load(Parquet(root=str(tmp_path), stream=True), "train")
    with pytest.raises(UserError, match=r"train-0\.parquet row 2 is 9x9 pixels but the first is 8x8"):
        images.pixels()
    assert load(Parquet(root=str(tmp_path), size=8), "train").images.shape == (3, 3, 8, 8)


def test_parquet_without_files_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"has no files \*\*/train-\*\.parquet; name them with --data\.train-files"):
        load(Parquet(root=str(tmp_path)), "train")


def test_a_file_that_is_cut_off_after_it_was_opened_is_named(shards):
    images = load(streamed(shards), "train")
    for path in Path(shards.root).rglob("train-*.parquet"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"train-0000\d-of-00002\.parquet cannot be read as parquet"):
        images.images[torch.tensor([39])]


def test_the_hub_is_read_in_parts(shards, tmp_path, monkeypatch):
    """A stand-in for the hub's file system: a folder, in which what is opened and read is recorded."""
    import huggingface_hub

    read = []

    class Remote(DirFileSystem):
        def __init__(self):
            super().__init__(path=str(tmp_path / "remote"), fs=LocalFileSystem())

        def open(self, path, *arguments, **options):
            read.append(path)
            return super().open(path, "rb")

        def info(self, path, **options):
            return {**super().info(path, **options), "blob_id": f"the hash of {Path(path).name}"}

    place = tmp_path / "remote" / "datasets" / "me" / "animals@refs%2Fone"
    place.mkdir(parents=True)
    (tmp_path / "data").rename(place / "data")
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Remote)
    images = load(Hub(repository="me/animals", revision="refs/one", image_column="image", stream=True), "train")
    assert len(read) == 3, "of each file the labels, and of the first the first image's group"
    expected = load(Parquet(root=str(place)), "train")
    assert torch.equal(images.pixels(), expected.images)
    first = images.images.identity()[0]
    size = (place / "data" / "train-00000-of-00002.parquet").stat().st_size
    assert first == ("data/train-00000-of-00002.parquet row 0", size, "the hash of train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="has no files"):
        load(Hub(repository="me/animals", revision="refs/one", train_files="*.csv", stream=True), "train")


def test_a_stream_is_known_by_its_files_without_decoding(source, monkeypatch):
    images = load(streamed(source), "train")
    monkeypatch.setattr("regmix.data.stored.decode", None)
    root = Path(source.root)
    known = images.images.identity()
    assert len(known) == len({one.name for one in known}) == len(images)
    for name, size, version in known:
        found = (root / name.partition(" row ")[0]).stat()
        assert (size, version) == (found.st_size, str(found.st_mtime_ns))
    assert images.images.identity() == known
    some = torch.tensor([33, 2])
    assert images.subset(some).images.identity() == [known[33], known[2]], "in the order of the numbers"


def test_rows_are_known_by_their_number_in_the_file(shards):
    known = load(streamed(shards), "train").images.identity()
    assert known[0].name == "data/train-00000-of-00002.parquet row 0"
    assert known[39].name == "data/train-00001-of-00002.parquet row 19"


def test_an_overwritten_file_has_another_identity_and_a_lost_one_is_named(photos):
    images = load(streamed(photos), "train")
    before = images.images.identity()
    changed = Path(photos.root) / "train" / "dog" / "003.png"
    changed.write_bytes(changed.read_bytes() + b"!")
    after = images.images.identity()
    assert [place for place in range(len(images)) if before[place] != after[place]] == [23]
    changed.unlink()
    with pytest.raises(UserError, match=r"dog/003\.png cannot be read: No such file"):
        images.images.identity()


class Counted:
    """Images that only know their groups."""

    def __init__(self, groups: int, rows: int) -> None:
        self.starts = [group * rows for group in range(groups)]
        self._len = groups * rows

    def __len__(self) -> int:
        return self._len


def order_of(groups: int, rows: int, number: int, keep: torch.Tensor | None = None) -> torch.Tensor:
    """The order in which a pass looks at the rows of groups of a size."""
    source = Counted(groups, rows)
    numbers = torch.arange(len(source)) if keep is None else keep
    stored = Stored(source, numbers, None, (len(numbers), 1, 1, 1))
    loader = Loader(
        ImageSet(stored, torch.zeros(len(numbers), dtype=torch.int64), ("a",)), 64, "cpu", pad=0, flip=False, seed=0
    )
    return torch.cat([index for index, *_ in loader._plan(range(number * len(loader), (number + 1) * len(loader)))])


@pytest.mark.parametrize(("groups", "rows"), [(200, 100), (30, 1000), (3, 10_000)])
def test_a_pass_over_groups_looks_at_few_of_them_at_a_time(groups, rows):
    order = order_of(groups, rows, 0)
    assert torch.equal(order.sort().values, torch.arange(groups * rows))
    group = order // rows
    for first in range(0, len(order), 1000):
        window = group[first : first + 1000]
        assert len(window.unique()) <= (WINDOW + 1000) / rows + 2
    # Every group is read once in a pass: the places at which it is looked at lie together.
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    spans = place.view(groups, rows).amax(1) - place.view(groups, rows).amin(1)
    assert int(spans.max()) <= rows + 1.05 * WINDOW


def test_a_pass_over_groups_is_well_shuffled():
    first, second = order_of(200, 100, 0), order_of(200, 100, 1)
    assert not torch.equal(first, second)
    for order in (first, second):
        sequence = torch.corrcoef(torch.stack([order, torch.arange(len(order))]).double())[0, 1]
        assert abs(float(sequence)) < 0.2, "the groups come in a random order"
        batch = order.view(-1, 100) // 100
        mixed = [len(groups.unique()) for groups in batch]
        assert min(mixed) > 5, "at the ends, where the window is half empty"
        assert min(mixed[20:-20]) > 20, "batches mix many groups"


def test_a_subset_of_grouped_rows_is_dealt_once():
    keep = torch.arange(0, 20_000, 3)
    assert torch.equal(order_of(200, 100, 0, keep).sort().values, torch.arange(len(keep)))


@settings(max_examples=15)
@given(
    st.lists(st.integers(1, 2 * WINDOW), min_size=1, max_size=8),
    st.integers(0, 4),
    st.sampled_from((1, 7, 900)),
)
def test_groups_are_read_once_in_a_shuffled_pass_and_not_kept_for_ever(sizes, seed, every):
    """Whatever the groups' sizes, and however few of their rows take part."""
    read, most = [], 0

    class Metadata:
        num_row_groups = len(sizes)

        def row_group(self, group):
            return type("Group", (), {"num_rows": sizes[group]})

    def read_group(shard, group):
        read.append(group)
        return pa.array([b""] * sizes[group])

    numbers = torch.arange(0, sum(sizes), every)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "_read_group", read_group)
        shard = row_groups.Shard("made up", row_groups.Disk(Path()), Metadata(), "x")
        source = row_groups.RowGroups([shard]).only(numbers)
        images = ImageSet(Stored(source, numbers, None, (len(numbers), 3, 1, 1)), torch.zeros_like(numbers), ("a",))
        loader = Loader(images, 64, "cpu", pad=0, flip=False, seed=seed)
        order = torch.cat([index for index, *_ in loader._plan(range(len(loader)))])
        # As threads do that read ahead: half a window before the others, a row is looked at.
        ahead = WINDOW // 2
        turns = torch.cat([order[: ahead + 1], torch.stack([order[ahead + 1 :], order[: -ahead - 1]], 1).flatten()])
        for number in numbers[turns if len(order) > ahead else order].tolist():
            source.encoded(number)
            most = max(most, sum(len(kept.result()) for kept, _ in source._kept.values()))
    assert sorted(read) == sorted(set((torch.bucketize(numbers, torch.tensor(source.starts), right=True) - 1).tolist()))
    assert most <= 3 * WINDOW + 2 * max(sizes) / every + 2
