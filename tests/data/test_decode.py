import io
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.data.decode import Encoded, decode, decode_and_tell, import_optional
from regmix.data.images import ImageSet
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
    with pytest.raises(UserError, match=r"the image .*its pixels have no defined white level"):
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


def lying(orientation, kind: str, mode: str = "RGB") -> bytes:
    """NOISE as a camera stores it that was held in one of the eight ways."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(np.tile(NOISE, (1, 2, 1))).convert(mode), kind, exif=exif)


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What the standard says is to be done with the stored pixels."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("TIFF", "RGB"), ("JPEG", "RGB")])
def test_images_are_turned_as_their_exif_orientation_says(kind, mode, orientation):
    content = lying(orientation, kind, mode)
    with Image.open(io.BytesIO(lying(1, kind, mode))) as image:
        stored = np.asarray(image.convert("RGB"))
    decoded = decode_and_tell(Encoded("the image", content), None)
    assert np.array_equal(decoded.pixels, UPRIGHT[orientation](stored))
    assert (decoded.turned, decoded.unread) == (orientation > 1, False)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_orientation_that_means_nothing_changes_nothing(kind, orientation):
    decoded = decode_and_tell(Encoded("the image", lying(orientation, kind)), None)
    assert decoded.pixels.shape == (9, 18, 3)
    assert not decoded.turned


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.filterwarnings("default:Corrupt EXIF data")
def test_damaged_exif_data_stops_nothing(kind, exif):
    content = saved(Image.fromarray(NOISE), kind, exif=exif)
    decoded = decode_and_tell(Encoded("the image", content), None)
    assert np.array_equal(decoded.pixels, decode_one(saved(Image.fromarray(NOISE), kind)))
    assert not decoded.turned


def test_sets_in_memory_tell_how_many_images_were_turned():
    nonsense = saved(Image.fromarray(np.tile(NOISE, (1, 2, 1))), "JPEG", exif=b"Exif\0\0nonsense")
    encoded = [Encoded("x", content) for content in [lying(3, "JPEG")] * 300 + [lying(1, "PNG"), nonsense]]
    stored = Stored.of(Listed(encoded), None)
    images = ImageSet(stored, torch.zeros(302, dtype=torch.int64), ("a",), ("earlier note",)).resident()
    assert images.notes == (
        "earlier note",
        "300 of 302 images were turned upright, as their EXIF orientation says",
        "1 of 302 images have damaged EXIF data: they may be rotated",
    )


def test_sets_in_memory_tell_how_many_images_are_transparent():
    """An icon that its alpha channel cuts out of one colour is a picture of that colour."""
    alpha = np.dstack([np.zeros_like(NOISE), 255 * (NOISE[:, :, :1] > 100)]).astype(np.uint8)
    palette = Image.fromarray(NOISE).quantize(16)
    files = [
        saved(Image.fromarray(alpha)),
        saved(palette, transparency=bytes([0] + [255] * 15)),
        saved(Image.fromarray(alpha[:, :, 2:])),
        saved(Image.fromarray(np.dstack([NOISE, np.full_like(NOISE[:, :, :1], 255)]))),
        saved(Image.fromarray(NOISE)),
    ]
    stored = Stored.of(Listed([Encoded("x", content) for content in files]), None)
    _, notes = stored.resident_and_notes()
    assert len(notes) == 1
    assert notes[0].startswith("3 of 5 images have transparent pixels")


def test_16_bit_grey_in_which_0_is_white_is_refused():
    """Pillow inverts such images of 8 bits, and does not invert those of 16."""
    ramp = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)
    assert np.array_equal(decode_one(saved(Image.fromarray(ramp), "TIFF", tiffinfo={262: 1}))[:, :, 0], ramp)
    wide = Image.fromarray(ramp.astype(np.uint16) * 257)
    assert np.array_equal(decode_one(saved(wide, "TIFF"))[:, :, 0], ramp)
    content = bytearray(saved(wide, "TIFF"))
    entry = content.index(struct.pack("<HHI", 262, 3, 1))
    content[entry + 8 : entry + 10] = struct.pack("<H", 0)
    with pytest.raises(UserError, match="16-bit grey in which 0 is white"):
        decode_one(bytes(content))


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_newer_formats_are_read(kind):
    smooth = np.indices((16, 16)).sum(axis=0).astype(np.uint8)
    assert abs(decode_one(saved(Image.fromarray(smooth), kind)).astype(int)[:, :, 1] - smooth).max() < 8


def test_only_a_file_of_that_suffix_can_pass_for_tga():
    content = saved(Image.fromarray(NOISE), "TGA")
    assert np.array_equal(decode(Encoded("a.TGA", content), None), NOISE)
    with pytest.raises(UserError, match="is not an image of a known format"):
        decode(Encoded("a.png", content), None)


def test_nothing_to_decode_is_an_error():
    with pytest.raises(UserError, match="no images"):
        resident([], None)


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r'pip install "regmix\[data\]"'):
        import_optional("pyarrow.parquet")
