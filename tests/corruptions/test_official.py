"""Reading the official files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from regmix.corruptions import OfficialFiles
from regmix.types import UserError

LABELS = torch.tensor([3, 1, 4, 1])
IMAGES = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    numbers = np.arange(5 * 4, dtype=np.uint8)
    np.save(tmp_path / "fog.npy", np.broadcast_to(numbers[:, None, None, None], (20, 8, 8, 3)).copy())
    np.save(tmp_path / "snow.npy", np.zeros((20, 8, 8, 3), np.uint8))
    np.save(tmp_path / "spatter.npy", np.zeros((20, 8, 8, 3), np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(LABELS.numpy().astype(np.uint8), 5))
    return tmp_path


def test_a_severity_is_its_part_of_the_file(folder: Path) -> None:
    images = OfficialFiles(folder).images("fog", 3, IMAGES, LABELS)
    assert images.shape == (4, 3, 8, 8)
    assert images[:, 0, 0, 0].tolist() == [8, 9, 10, 11]
    assert OfficialFiles(folder).images("fog", 5, IMAGES[:2], LABELS[:2])[:, 2, 7, 7].tolist() == [16, 17]


def test_a_sample_of_the_test_set_gets_its_own_images(folder: Path) -> None:
    files = OfficialFiles(folder, torch.tensor([1, 2]))
    assert files.images("fog", 3, IMAGES[:2], LABELS[1:3])[:, 0, 0, 0].tolist() == [9, 10]
    with pytest.raises(UserError, match="other labels than the test split"):
        files.images("fog", 3, IMAGES[:2], LABELS[:2])
    with pytest.raises(UserError, match="image 5 of the test set is needed"):
        OfficialFiles(folder, torch.tensor([1, 4])).images("fog", 3, IMAGES[:2], LABELS[:2])


def test_the_mean_is_over_those_of_the_benchmark_that_are_there(folder: Path) -> None:
    assert OfficialFiles(folder).names() == ["snow", "fog"]
    with pytest.raises(UserError, match=r"has no file of CIFAR-10-C such as gaussian_noise\.npy"):
        OfficialFiles(folder / "nowhere").names()


def test_what_is_wrong_with_a_file_is_said(folder: Path) -> None:
    files = OfficialFiles(folder)
    with pytest.raises(UserError, match=r"frost\.npy is missing"):
        files.images("frost", 1, IMAGES, LABELS)
    with pytest.raises(UserError, match=r"fog\.npy holds images of 8x8 pixels, but the test images have 16x16"):
        files.images("fog", 1, torch.zeros(4, 3, 16, 16, dtype=torch.uint8), LABELS)
    with pytest.raises(UserError, match="severity 7"):
        files.images("fog", 7, IMAGES, LABELS)
    with pytest.raises(UserError, match=r"labels\.npy has other labels than the test split"):
        files.images("fog", 1, IMAGES, LABELS.flip(0))
    with pytest.raises(UserError, match=r"fog\.npy has 4 images per severity, but image 8 of the test set is needed"):
        files.images("fog", 1, IMAGES.repeat(2, 1, 1, 1), LABELS.repeat(2))
    np.save(folder / "snow.npy", np.zeros((20, 8, 8), np.float32))
    with pytest.raises(UserError, match=r"snow\.npy is float32 \(20, 8, 8\), not uint8"):
        files.images("snow", 1, IMAGES, LABELS)
    (folder / "fog.npy").write_bytes((folder / "fog.npy").read_bytes()[:200])
    with pytest.raises(UserError, match=r"fog\.npy cannot be read"):
        files.images("fog", 1, IMAGES, LABELS)
    np.save(folder / "fog.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"fog\.npy cannot be read"):
        files.images("fog", 1, IMAGES, LABELS)
