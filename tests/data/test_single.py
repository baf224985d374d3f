"""Image files as a trained model takes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.data import Folder, load
from regmix.data.single import image_files, read_image
from regmix.types import UserError


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "test" / "a" / "1.png"
    path.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_file_is_read_as_the_folder_source_reads_it(photo: Path) -> None:
    images = load(Folder(root=str(photo.parents[2]), size=16), "test").images
    assert torch.equal(read_image(photo, (3, 16, 16)), images[0])
    assert torch.equal(read_image(photo.read_bytes(), (3, 16, 16)), images[0])


def test_grey_is_pillows(photo: Path) -> None:
    colours = read_image(photo, (3, 16, 16)).permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.array_equal(read_image(photo, (1, 16, 16))[0].numpy(), expected)


@pytest.mark.parametrize("shape", [(2, 16, 24), (4, 16, 16)])
def test_shapes_that_no_file_has_are_refused(photo: Path, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="files have 1 or 3"):
        read_image(photo, shape)


def test_folders_are_searched_at_any_depth_and_files_are_taken_as_they_are(photo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"")
    (photo.parent / "notes.txt").write_text("no image")
    assert image_files([other, tmp_path / "photos"]) == [other, photo]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no images"):
        image_files([tmp_path / "empty"])
    with pytest.raises(UserError, match="missing does not exist"):
        image_files([tmp_path / "missing"])
