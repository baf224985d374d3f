import shutil

import huggingface_hub
import pytest
import torch

from regmix.data import Hub, load
from regmix.types import UserError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the hub whose snapshots are tmp_path; it records what it was asked for."""
    calls = []

    def snapshot_download(repository, **options):
        calls.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.mark.real_data
def test_a_data_set_in_the_layout_of_the_hub(tmp_path, hub, shared, cifar10_test):
    (tmp_path / "plain_text").mkdir()
    name = "test-00000-of-00001.parquet"
    shutil.copy(shared / "cifar10" / name, tmp_path / "plain_text" / name)
    images = load(Hub(revision="abc"), "test")
    assert torch.equal(images.images, cifar10_test.images)
    assert images.classes == cifar10_test.classes
    (call,) = hub
    assert call[0] == "uoft-cs/cifar10"
    assert call[1]["repo_type"] == "dataset"
    assert call[1]["revision"] == "abc"


def test_only_the_wanted_files_are_downloaded(hub):
    from huggingface_hub.utils import filter_repo_objects

    files = ["README.md", "train-0.parquet", "plain_text/train-0.parquet", "plain_text/test-0.parquet"]
    for split, wanted in (("train", files[1:3]), ("test", files[3:])):
        with pytest.raises(UserError, match="has no files"):
            load(Hub(), split)
        patterns = hub[-1][1]["allow_patterns"]
        assert list(filter_repo_objects(files, allow_patterns=patterns)) == wanted


def test_files_in_several_folders_must_be_chosen_from(tmp_path, hub):
    for folder in ("large", "small"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train-0.parquet").touch()
    with pytest.raises(UserError, match=r"several folders \(large, small\); choose one with --data.train-files"):
        load(Hub(), "train")
    with pytest.raises(UserError, match=r"small/train-0\.parquet cannot be read"):
        load(Hub(train_files="small/train-*.parquet"), "train")


def test_an_unreachable_hub_is_reported_in_one_line(monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no network\nreally")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"cifar10 cannot be fetched from the Hugging Face hub: no network really$"):
        load(Hub(), "train")


def test_an_unreachable_hub_is_reported_in_one_line_when_streaming(monkeypatch):
    """The real file system of the hub, whose errors are those of the library that it speaks HTTP with."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"uoft-cs/cifar10 cannot be fetched from the Hugging Face hub: .*refused$"):
        load(Hub(stream=True), "train")
