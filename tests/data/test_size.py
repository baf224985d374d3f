"""Images of any height and width, and of one channel."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.cli.entry import main
from regmix.cli.flags import parse
from regmix.config import Experiment, from_json, to_json
from regmix.data import Folder, Parquet, load
from regmix.data.decode import Encoded, decode
from regmix.data.single import read_image
from regmix.data.size import format_size, parse_size
from regmix.types import UserError


@pytest.mark.parametrize(("text", "size"), [("64", 64), ("96x128", (96, 128)), ("128X96", (128, 96)), ("32x32", 32)])
def test_a_size_is_a_side_or_height_times_width(text: str, size: int | tuple[int, int]) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size
    assert parse(Folder, ["--size", text], "train").size == size
    assert parse(Parquet, ["--size", text], "train").size == size


def test_no_size_is_a_size_for_parquet() -> None:
    assert parse(Parquet, ["--size", "None"], "train").size is None


@pytest.mark.parametrize("text", ["", "x", "96x", "1x2x3", "-4", "6.5", "big", "96 x 128", "²x3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="HEIGHTxWIDTH"):
        parse_size(text)


@pytest.mark.parametrize("size", [0, (0, 5), (5, 20_000), (-1, 5)])
def test_impossible_sizes_are_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(UserError, match="size"):
        Experiment(data=Folder(size=size))


@pytest.mark.parametrize("size", [48, (48, 64)])
def test_a_run_remembers_size_and_channels(size: int | tuple[int, int]) -> None:
    experiment = Experiment(data=Folder(size=size, channels="grey"))
    assert from_json(to_json(experiment)) == experiment


def content(pixels: np.ndarray, **more: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **more)
    return stream.getvalue()


GRADIENT = np.stack(np.broadcast_arrays(*np.ogrid[0:240:6, 0:240:3], np.uint8(7)), -1).astype(np.uint8)
"""40 rows that redden downwards by 6 each, 80 columns that green to the right by 3 each."""


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((20, 40), (0, 40), (0, 80)), ((20, 20), (0, 40), (20, 60)), ((10, 40), (10, 30), (0, 80))],
)
def test_the_largest_part_of_the_shape_is_cut_from_the_centre(
    size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    """On a linear gradient every resized pixel is the colour at its centre, inside of the border."""
    found = decode(Encoded("it", content(GRADIENT)), size).astype(float)
    assert found.shape == (*size, 3)
    down = rows[0] + (np.arange(size[0]) + 0.5) * (rows[1] - rows[0]) / size[0] - 0.5
    across = columns[0] + (np.arange(size[1]) + 0.5) * (columns[1] - columns[0]) / size[1] - 0.5
    assert np.abs(found[1:-1, 1:-1, 0] - 6 * down[1:-1, None]).max() <= 0.51
    assert np.abs(found[1:-1, 1:-1, 1] - 3 * across[None, 1:-1]).max() <= 0.51
    assert (found[:, :, 2] == 7).all()


def test_an_image_of_the_size_stays_as_it_is() -> None:
    assert np.array_equal(decode(Encoded("it", content(GRADIENT)), (40, 80)), GRADIENT)


def test_grey_is_pillows_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    found = decode(Encoded("it", content(pixels)), None, channels="grey")
    assert found.shape == (12, 15, 1)
    assert np.array_equal(found[:, :, 0], np.asarray(Image.fromarray(pixels).convert("L")))
    grey = np.ascontiguousarray(pixels[:, :, 0])
    assert np.array_equal(decode(Encoded("it", content(grey)), None, channels="grey")[:, :, 0], grey)


@pytest.mark.parametrize("stream", [False, True])
def test_a_rectangle_is_cut_after_the_image_is_turned_upright(tmp_path: Path, stream: bool) -> None:
    """A photograph that was taken with the camera on its side: stored lying, EXIF orientation 6."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.ascontiguousarray(np.rot90(GRADIENT))
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "photo.png").write_bytes(content(lying, exif=exif))
        (tmp_path / split / "b").mkdir()
        (tmp_path / split / "b" / "photo.png").write_bytes(content(GRADIENT))
    images = load(Folder(root=str(tmp_path), size=(40, 80), stream=stream), "test")
    assert images.shape == (3, 40, 80)
    turned, plain = images.pixels()
    assert torch.equal(turned, plain)
    grey = load(Folder(root=str(tmp_path), size=(40, 80), channels="grey", stream=stream), "test")
    assert grey.shape == (1, 40, 80)
    assert torch.equal(grey.pixels()[0], read_image(content(GRADIENT), (1, 40, 80)))


@pytest.mark.slow
def test_a_model_of_rectangular_grey_images_is_trained_attacked_and_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 8)):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(120 * label, 120 + 120 * label, (30, 44, 3), dtype=np.uint8)
                (folder / f"{number}.png").write_bytes(content(pixels))
    root, run = tmp_path / "photos", tmp_path / "run"
    settings = "--data.size 12x20 --data.channels grey --crop crop_shift --crop.most 4 --pad 0"
    small = "--model small_cnn --model.width 4 --epochs 2 --batch-size 16"
    assert main(f"train photos --data.root {root} {settings} {small} --out {run}".split()) == 0
    assert main(f"evaluate {run} --attacks pgd-5,autoattack-screened --json".split()) == 0
    capsys.readouterr()
    assert main(["predict", str(run), str(root / "test" / "dark" / "0.png")]) == 0
    assert "%" in capsys.readouterr().out
