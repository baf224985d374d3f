import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.data.decode import Encoded, decode, import_optional
from regmix.data.stored import Stored
from regmix.types import UserError

NOISE = np.random.RandomState(0).randint(0, 256, (9, 9, 3)).astype(np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode_one(content: bytes, size: int | None = None) -> np.ndarray:
    """One image, [H, W, 3]."""
    return decode(Encoded("the image", content), size)


class Listed:
    """Encoded images in a list."""

    starts = None

    def __init__(self, encoded: list[Encoded]) -> None:
        self.encoded = encoded.__getitem__
        self._len = len(encoded)

    def __len__(self) -> int:
        return self._len


def resident(encoded: list[Encoded], size: int | None) -> torch.Tensor:
    """All of them, [N, 3, H, W]."""
    return Stored.of(Listed(encoded), size).resident()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(kind):
    assert np.array_equal(decode_one(saved(Image.fromarray(NOISE), kind)), NOISE)


def test_grey_gets_three_equal_channels():
    pixels = decode_one(saved(Image.fromarray(NOISE[:, :, 0])))
    assert np.array_equal(pixels, np.repeat(NOISE[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_cut_off(kind):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert decode_one(saved(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(dtype):
    content = saved(Image.fromarray(np.ones((2, 2), dtype=dtype)), "TIFF")
    with pytest.raises(UserError, match=r"the image .*32-bit pixels"):
        decode_one(content)


def test_palette_with_transparency_keeps_its_colours():
    image = Image.fromarray(NOISE).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    # Transparency as bytes is what Pillow warns about when it converts to RGB directly.
    assert np.array_equal(decode_one(saved(image, transparency=bytes(range(16)))), expected)
    assert np.array_equal(decode_one(saved(image, "GIF", transparency=0)), expected)


def test_transparency_is_dropped_not_mixed():
    image = Image.fromarray(NOISE)
    image.putalpha(3)
    assert np.array_equal(decode_one(saved(image)), NOISE)


def test_cmyk_becomes_rgb():
    white = Image.new("CMYK", (4, 4), (0, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        assert (decode_one(saved(white, kind)) > 250).all()


def test_black_and_white_bits():
    bits = Image.fromarray(NOISE[:, :, 0] > 127)
    assert set(np.unique(decode_one(saved(bits)))) == {0, 255}


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_one(content) == (255, 0, 0)).all()


def test_an_image_of_the_right_size_is_not_touched():
    assert np.array_equal(decode_one(saved(Image.fromarray(NOISE)), size=9), NOISE)


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8), (8, 8)])
def test_the_shorter_side_is_resized_and_the_centre_cut_out(height, width):
    image = Image.fromarray(np.random.RandomState(1).randint(0, 256, (height, width, 3)).astype(np.uint8))
    left, top = (width // 2 - 4) // 2, (height // 2 - 4) // 2
    small = image.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
    expected = np.asarray(small.crop((left, top, left + 4, top + 4)))
    assert np.array_equal(decode_one(saved(image), size=4), expected)


def test_shrinking_averages_instead_of_skipping_pixels():
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert abs(decode_one(saved(Image.fromarray(board)), size=4).astype(int) - 128).max() < 8


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1)])
def test_extreme_shapes(shape):
    image = Image.fromarray(np.full(shape, 77, dtype=np.uint8))
    assert (decode_one(saved(image), size=16) == 77).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_truncated_files_are_refused_by_name(kind):
    content = saved(Image.fromarray(np.tile(NOISE, (5, 5, 1))), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on some of the broken files before it gives up.
        for length in [0, 1, 10, len(content) // 2]:
            with pytest.raises(UserError, match=r"^the image "):
                decode_one(content[:length])


def test_text_and_unsupported_kinds_are_refused():
    for content in (b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a", b"\xff\xd8\xff"):
        with pytest.raises(UserError, match=r"^the image "):
            decode_one(content)


def test_a_decompression_bomb_is_refused():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(UserError, match=r"^the image .*decompression bomb"):
        decode_one(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), size=8)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png .*No such file"):
        decode(Encoded(str(tmp_path / "gone.png"), tmp_path / "gone.png"), None)


def test_images_of_two_sizes_are_refused_unless_a_size_is_given():
    encoded = [Encoded(f"image {n}", saved(Image.new("RGB", (n, 8)))) for n in (8, 9)]
    with pytest.raises(UserError, match="image 9 is 9x8 pixels but the first is 8x8"):
        resident(encoded, None)
    assert resident(encoded, 8).shape == (2, 3, 8, 8)


def test_order_is_kept_over_many_images():
    encoded = [Encoded(str(i), saved(Image.new("L", (2, 2), i % 256))) for i in range(1000)]
    assert torch.equal(resident(encoded, None)[:, 0, 0, 0], torch.arange(1000).to(torch.uint8))


def test_one_broken_image_among_many_is_named():
    good = saved(Image.new("L", (2, 2)))
    encoded = [Encoded(f"row {i}", b"" if i == 600 else good) for i in range(1000)]
    with pytest.raises(UserError, match=r"^row 600 "):
        resident(encoded, None)


def test_nothing_to_decode_is_an_error():
    with pytest.raises(UserError, match="no images"):
        resident([], None)


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r'pip install "regmix\[data\]"'):
        import_optional("pyarrow.parquet")
