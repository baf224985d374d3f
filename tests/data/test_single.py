"""Image files as a trained model takes them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from regmix.data import Folder, load
from regmix.data.single import Transform, image_files, read_image
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


def saved(folder: Path, mode: str, kind: str, **more: object) -> Path:
    """A random image of one of Pillow's modes."""
    path = folder / f"{mode.replace(';', '')}.{kind}"
    pixels = np.random.default_rng(1).integers(0, 256, (18, 26, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(2).integers(0, 2**16, (18, 26)).astype(np.uint16))
    elif mode == "RGBA":
        image.putalpha(Image.fromarray(pixels[:, :, 0]))
    else:
        image = image.convert(mode)
    image.save(path, **more)
    return path


@pytest.mark.parametrize("channels", ["rgb", "grey"])
@pytest.mark.parametrize("size", [12, (10, 16), (18, 26), (40, 20)])
@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "png"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("I;16", "png"), ("CMYK", "tif")]
)
def test_a_transform_makes_what_the_folder_source_reads(
    mode: str, kind: str, size: int | tuple[int, int], channels: str, tmp_path: Path
) -> None:
    folder = tmp_path / "test" / "a"
    folder.mkdir(parents=True)
    path = saved(folder, mode, kind)
    images = load(Folder(root=str(tmp_path), size=size, channels=channels), "test")
    expected = images.images[0].float() / 255
    transform = pickle.loads(pickle.dumps(Transform(images.shape)))
    assert torch.equal(transform(path), expected)
    assert torch.equal(transform(str(path)), expected)
    assert torch.equal(transform(path.read_bytes()), expected)
    with Image.open(path) as image:
        assert torch.equal(transform(image), expected)


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_open_photograph_is_turned_once(turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = saved(tmp_path, "RGB", "png", exif=exif)
    expected = Transform((3, 9, 13))(path)
    with Image.open(path) as image:
        assert torch.equal(Transform((3, 9, 13))(image), expected)
        assert torch.equal(Transform((3, 9, 13))(ImageOps.exif_transpose(image)), expected)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an image is Tensor; give a file"):
        Transform((3, 8, 8))(torch.rand(3, 8, 8))  # type: ignore[arg-type]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(saved(tmp_path, "RGB", "jpg").read_bytes()[:-100])
    with Image.open(broken) as image, pytest.raises(UserError, match="the image cannot be read as an image"):
        Transform((3, 8, 8))(image)
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read as an image"):
        Transform((3, 8, 8))(broken)
