"""Motion blur, snow and frost, against plain recomputations."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from regmix.corruptions import BY_NAME, COMMON, SEVERITIES, Computed, weather
from regmix.corruptions.weather import frost, motion_blur, snow
from regmix.types import UserError

LABELS = torch.zeros(3, dtype=torch.long)


def values(side: int = 32) -> np.ndarray:
    return np.random.default_rng(1).random((3, 3, side, side))


@pytest.fixture
def photographs(tmp_path, monkeypatch) -> list[np.ndarray]:
    """A package imagecorruptions with photographs of noise."""
    folder = tmp_path / "imagecorruptions" / "frost"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('the code of the package is not run')")
    made = []
    for number, name in enumerate(weather.PHOTOGRAPHS):
        pixels = np.random.default_rng(number).integers(0, 256, (180, 200, 3), dtype=np.uint8)
        made.append(pixels)
        Image.fromarray(pixels).save(folder / name, "PNG")
    monkeypatch.syspath_prepend(str(tmp_path))
    weather._photograph.cache_clear()
    yield made
    weather._photograph.cache_clear()


def smeared(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Pixel by pixel, in degrees; the nearest pixel counts beyond the border."""
    weights = [np.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * radius + 1)]
    made = np.zeros_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            for i, weight in enumerate(weights):
                down, right = i * np.sin(np.deg2rad(angle)), i * np.cos(np.deg2rad(angle))
                r = int(np.clip(row + np.ceil(down - 0.5), 0, image.shape[1] - 1))
                c = int(np.clip(column + np.ceil(right - 0.5), 0, image.shape[2] - 1))
                made[:, row, column] += weight / sum(weights) * image[:, r, c]
    return made


@pytest.mark.parametrize("severity", [1, 5])
def test_motion_blur_is_a_weighted_mean_along_a_line(severity) -> None:
    x = values(12)
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    angles = np.random.default_rng(0).uniform(-45, 45, 3)
    made = motion_blur(x, severity, np.random.default_rng(0))
    for image, angle, blurred in zip(x, angles, made, strict=True):
        np.testing.assert_allclose(blurred, smeared(image, radius, sigma, angle), atol=1e-12)


def test_motion_blur_leaves_an_even_image_as_it_is() -> None:
    even = np.full((1, 3, 8, 8), 0.3)
    np.testing.assert_allclose(motion_blur(even, 5, np.random.default_rng(0)), even)


def test_snow_bleaches_and_adds_flakes_and_their_half_turn() -> None:
    x, rng = values(16)[:1], np.random.default_rng(3)
    flakes = rng.normal(0.1, 0.2, (1, 1, 16, 16))
    flakes = np.floor(255 * np.clip(np.where(flakes < 0.6, 0, flakes), 0, 1)) / 255
    flakes = smeared(flakes[0], 8, 3, rng.uniform(-135, -45, 1)[0])
    grey = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    expected = 0.95 * x + 0.05 * np.maximum(x, 1.5 * grey[:, None] + 0.5) + flakes + np.rot90(flakes, 2, (1, 2))
    np.testing.assert_allclose(snow(x, 1, np.random.default_rng(3)), expected, atol=1e-12)


def test_frost_adds_a_part_of_a_reduced_photograph(photographs) -> None:
    x = values(32)
    made = frost(x, 3, np.random.default_rng(5))
    for image, frosted in zip(x, made, strict=True):
        added = (frosted - 0.9 * image) / 0.4
        reduced = [photograph[2::5, 2::5].transpose(2, 0, 1) / 255 for photograph in photographs]
        parts = [
            np.abs(each[:, top : top + 32, left : left + 32] - added).max()
            for each in reduced
            for top in range(each.shape[1] - 32)
            for left in range(each.shape[2] - 32)
        ]
        assert min(parts) < 1e-9
    assert frost(values(64), 1, np.random.default_rng(0)).shape == (3, 3, 64, 64), "less reduced"
    with pytest.raises(UserError, match="larger than the photographs"):
        frost(values(200), 1, np.random.default_rng(0))


@pytest.mark.parametrize("name", BY_NAME)
def test_they_repeat_themselves_change_with_the_seed_and_hurt(name, photographs) -> None:
    x = (255 * torch.from_numpy(values())).to(torch.uint8)
    for severity in SEVERITIES:
        made = Computed().images(name, severity, x, LABELS)
        assert torch.equal(made, Computed().images(name, severity, x, LABELS))
        assert not torch.equal(made, Computed(seed=1).images(name, severity, x, LABELS))
        assert float((made.float() - x.float()).abs().mean()) > 3


def test_frost_asks_for_its_photographs(monkeypatch) -> None:
    monkeypatch.setattr(weather, "find_spec", lambda name: None)
    weather._photograph.cache_clear()
    with pytest.raises(UserError, match=r"pip install \"regmix\[corruptions\]\""):
        frost(values(), 1, np.random.default_rng(0))


def test_all_stays_what_it_was_and_more_can_be_named() -> None:
    assert Computed().names() == [*COMMON]
    assert len(COMMON) == 12
    assert not {*COMMON} & {*BY_NAME}


@pytest.mark.skipif(importlib.util.find_spec("imagecorruptions") is None, reason="imagecorruptions is not installed")
def test_the_photographs_of_the_package_are_large_enough() -> None:
    assert frost(values(), 5, np.random.default_rng(0)).shape == (3, 3, 32, 32)
