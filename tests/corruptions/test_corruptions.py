"""Corruptions, each against its formula or a plain recomputation, image by image."""

import colorsys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.corruptions import COMMON, EXTRA, SEVERITIES, Computed
from regmix.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, zoom_blur
from regmix.corruptions.digital import elastic_transform, jpeg_compression, pixelate
from regmix.corruptions.light import brightness, contrast, fog, saturate
from regmix.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from regmix.types import UserError

EVERY = COMMON | EXTRA
LABELS = torch.zeros(6, dtype=torch.long)


def pictures(count: int = 6, side: int = 32) -> torch.Tensor:
    """Smooth colours with an edge, so that every corruption has something to change."""
    torch.manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    smooth[:, :, side // 2 :, side // 3 :] *= 0.5
    return (255 * smooth).round().to(torch.uint8)


def values(count: int = 6, side: int = 32) -> np.ndarray:
    return pictures(count, side).numpy() / 255


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", EVERY)
def test_every_corruption_keeps_form_repeats_itself_and_hurts_more_with_severity(name: str) -> None:
    x, made = pictures(), []
    for severity in SEVERITIES:
        made.append(Computed().images(name, severity, x, LABELS))
        assert made[-1].shape == x.shape
        assert made[-1].dtype == torch.uint8
        assert torch.equal(made[-1], Computed().images(name, severity, x, LABELS))
    change = [float((one.float() - x.float()).abs().mean()) for one in made]
    assert min(change) > 0
    # elastic_transform bends less where it shears more; saturate takes colour away before it adds some
    if name not in ("elastic_transform", "saturate", "glass_blur"):
        assert change[4] > change[0]
    drawn = not torch.equal(made[2], Computed(seed=1).images(name, 3, x, LABELS))
    still = {"defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "saturate", "pixelate"}
    assert drawn == (name not in still | {"jpeg_compression"})


def test_images_are_the_same_whoever_comes_after_them() -> None:
    x = pictures(2, 8).repeat(501, 1, 1, 1)
    labels = torch.zeros(1002, dtype=torch.long)
    whole = Computed().images("shot_noise", 5, x, labels)
    assert torch.equal(Computed().images("shot_noise", 5, x[:1000], labels[:1000]), whole[:1000])


@pytest.mark.parametrize(
    ("noise", "variance"),
    [
        (gaussian_noise, lambda x: 0.10**2 + 0 * x),
        (shot_noise, lambda x: x / 50),
        (speckle_noise, lambda x: (0.20 * x) ** 2),
        (impulse_noise, lambda x: 0.07 * (0.5 - x + x**2) - (0.07 * (0.5 - x)) ** 2),
    ],
)
def test_noise_has_the_moments_of_its_formula(noise, variance) -> None:
    for level in (0.25, 0.5, 0.75):
        x = np.full((8, 3, 64, 64), level)
        change = noise(x, 5, rng()) - x
        mean = 0.07 * (0.5 - level) if noise is impulse_noise else 0.0
        assert abs(change.mean() - mean) < 4 * np.sqrt(variance(level) / x.size)
        assert abs(change.var() / variance(level) - 1) < 0.05


def test_a_gaussian_blur_spreads_a_point_as_a_gaussian() -> None:
    x = np.zeros((1, 3, 33, 33))
    x[:, :, 16, 16] = 1
    reach = np.arange(-4, 5)
    bell = np.exp(-(reach**2) / 2)
    expected = np.outer(bell, bell) / bell.sum() ** 2
    blurred = gaussian_blur(x, 5, rng())
    assert np.allclose(blurred[0, 0, 12:21, 12:21], expected, atol=1e-12)
    assert np.isclose(blurred.sum(), 3)


@pytest.mark.parametrize(("severity", "pixels", "softness"), [(1, 1, 0.4), (4, 5, 0.2), (5, 9, 0.1)])
def test_a_defocused_point_is_a_soft_disk(severity: int, pixels: int, softness: float) -> None:
    x = np.zeros((1, 3, 33, 33))
    x[:, :, 16, 16] = 1
    disk = {1: [(0, 0)], 5: [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]}.get(
        pixels, [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    )
    expected = np.zeros((33, 33))
    side = np.exp(-1 / (2 * softness**2))
    for i, j in disk:
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                weight = side ** (abs(a) + abs(b)) / (1 + 2 * side) ** 2
                expected[16 + i + a, 16 + j + b] += weight / len(disk)
    assert np.allclose(defocus_blur(x, severity, rng())[0, 1], expected, atol=1e-12)


def test_glass_takes_colours_from_the_upper_left_neighbours_only() -> None:
    x = np.arange(32 * 32).reshape(1, 1, 32, 32) % 251 / 255 * np.ones((1, 3, 1, 1))
    grey = np.rint(255 * glass_blur(x, 1, rng())[0, 0]).astype(int)
    old = np.rint(255 * x[0, 0]).astype(int)
    assert (grey[:2] == old[:2]).all()
    assert (grey[:, :2] == old[:, :2]).all()
    assert (grey != old).mean() > 0.5
    for line in range(2, 32):
        for column in range(2, 32):
            assert grey[line, column] in old[line - 1 : line + 1, column - 1 : column + 1]


def test_zooming_keeps_a_plain_image_and_the_middle() -> None:
    plain = np.full((1, 3, 32, 32), 0.3)
    assert np.allclose(zoom_blur(plain, 5, rng()), plain)
    x = np.zeros((1, 3, 33, 33))
    x[:, :, 16, 16] = 1
    blurred = zoom_blur(x, 3, rng())[0, 0]
    assert blurred.argmax() == 16 * 33 + 16
    assert 0.5 < blurred.max() < 1


def test_fog_adds_clouds_between_nothing_and_all() -> None:
    x = values()
    c, most = 0.75, x.max((1, 2, 3), keepdims=True)
    clouds = (fog(x, 3, rng()) * (most + c) / most - x) / c
    assert np.allclose(clouds[:, 0], clouds[:, 1])
    assert np.allclose(clouds.min((1, 2, 3)), 0)
    assert np.allclose(clouds.max((1, 2, 3)), 1)
    # neighbours are more alike than pixels far apart
    near = np.abs(np.diff(clouds[:, 0], axis=1)).mean()
    far = np.abs(clouds[:, 0, :16] - clouds[:, 0, 16:]).mean()
    assert near < far / 2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_and_saturation_are_those_of_hsv(severity: int) -> None:
    x = values(1, 8)
    x[0, :, 0, 0], x[0, :, 0, 1] = 0.0, 0.5
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    a, b = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))[severity - 1]
    bright, coloured = brightness(x, severity, rng()), saturate(x, severity, rng())
    for line in range(8):
        for column in range(8):
            h, s, v = colorsys.rgb_to_hsv(*x[0, :, line, column])
            assert np.allclose(bright[0, :, line, column], colorsys.hsv_to_rgb(h, s, min(v + more, 1)))
            assert np.allclose(coloured[0, :, line, column], colorsys.hsv_to_rgb(h, min(a * s + b, 1), v))


def test_contrast_shrinks_towards_the_mean_of_every_channel() -> None:
    x = values()
    flat = contrast(x, 5, rng())
    assert np.allclose(flat.mean((2, 3)), x.mean((2, 3)))
    assert np.allclose(flat.std((2, 3)), 0.15 * x.std((2, 3)))


def test_pixels_and_jpeg_are_pillow_s() -> None:
    x = pictures(1)
    image = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    small = image.resize((24, 24), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    assert np.allclose(pixelate(x.numpy() / 255, 4, rng())[0], np.asarray(small).transpose(2, 0, 1) / 255)
    file = BytesIO()
    image.save(file, "JPEG", quality=40)
    read = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.allclose(jpeg_compression(x.numpy() / 255, 5, rng())[0], read / 255)


class NoDraws:
    """Draws zeros: nothing is moved."""

    def uniform(self, low, high, shape):
        return np.zeros(shape)


class OneDirection:
    """Moves all three corners of the affine map alike, two pixels right and one down, and bends nothing."""

    def uniform(self, low, high, shape):
        return np.zeros(shape) + (np.array([2.0, 1.0]) if shape[-1] == 2 else 0)


def test_an_elastic_plane_that_is_not_pulled_stays_and_one_that_is_shifted_moves() -> None:
    x = values(2)
    assert np.allclose(elastic_transform(x, 3, NoDraws()), x)
    moved = elastic_transform(x, 3, OneDirection())
    assert np.allclose(moved[:, :, 5:, 5:], x[:, :, 4:-1, 3:-2])


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (24, 72)])
def test_elastic_planes_of_other_shapes_are_bent_as_little_as_squares(shape: tuple[int, int]) -> None:
    """A smooth image stays like itself at the mildest severity, in whatever direction it is long."""
    line, column = (np.linspace(0, side / 24, side) for side in shape)
    smooth = 0.5 + 0.25 * np.sin(4 * line)[:, None] + 0.25 * np.cos(4 * column)[None]
    x = np.broadcast_to(smooth, (40, 3, *shape)).copy()
    bent = elastic_transform(x, 1, np.random.default_rng(0))
    alike = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(x, bent, strict=True)]
    assert np.mean(alike) > 0.75


@pytest.mark.parametrize(
    ("name", "severity", "channels", "message"),
    [
        ("spatter", 1, 3, "spatter cannot be computed; read the official files with --corruption-files"),
        ("rain", 1, 3, "unknown corruption 'rain'; known: gaussian_noise"),
        ("fog", 0, 3, "severity 0: it must be 1, 2, 3, 4 or 5"),
        ("fog", 6, 3, "severity 6"),
        ("fog", 1, 1, "corruptions are made for colour images; these have 1 channel"),
    ],
)
def test_what_cannot_be_made_is_said(name: str, severity: int, channels: int, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", "[(]")):
        Computed().images(name, severity, pictures()[:, :channels], LABELS)
