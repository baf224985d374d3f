"""Every operation beside a float64 reference, pixel by pixel, and beside torchvision."""

import colorsys
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.torchvision_operators import declare_operators_of_torchvision
from regmix.data.colour import MOVING, OPERATIONS

SHAPE = (4, 3, 10, 12)


def images(channels: int = 3) -> Tensor:
    """8-bit images in [0, 1]: noise, a gradient, one colour, and a dark one."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (SHAPE[0], channels, *SHAPE[2:]), generator=generator, dtype=torch.uint8)
    codes[1] = torch.linspace(0, 255, SHAPE[3]).to(torch.uint8)
    codes[2] = torch.tensor([200, 30, 30], dtype=torch.uint8)[:channels, None, None]
    codes[3] //= 4
    return codes.double() / 255


AMOUNTS = {
    "brightness": [0.0, 0.4, 1.0, 1.9],
    "contrast": [0.0, 0.4, 1.0, 1.9],
    "saturation": [0.0, 0.4, 1.0, 1.9],
    "sharpness": [0.0, 0.4, 1.0, 1.9],
    "hue": [-0.5, -0.13, 0.0, 0.37],
    "posterize": [8, 5, 4, 1],
    "solarize": [1.0, 0.6, 0.25, 0.0],
    "shear_x": [-0.29, 0.0, 0.13, 0.31],
    "shear_y": [-0.29, 0.0, 0.13, 0.31],
    "translate_x": [-3.7, 0.0, 2.2, 20.0],
    "translate_y": [-3.7, 0.0, 2.2, 20.0],
    "skew_x": [-0.29, 0.0, 0.13, 0.31],
    "skew_y": [-0.29, 0.0, 0.13, 0.31],
    "rotate": [-29.0, 0.0, 11.0, 90.0],
}


def amounts(name: str) -> Tensor:
    return torch.tensor(AMOUNTS.get(name, [0.0] * 4), dtype=torch.float64)


def grey(pixel: np.ndarray) -> float:
    return float(pixel @ [0.2989, 0.587, 0.114])


def blend(a: float | np.ndarray, b: float | np.ndarray, share: float) -> np.ndarray:
    return np.clip(share * np.asarray(a) + (1 - share) * np.asarray(b), 0, 1)


def moved(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """The pixel nearest to a place, black outside."""
    height, width = image.shape[:2]
    i, j = math.floor(row + 0.5), math.floor(column + 0.5)
    return image[i, j] if 0 <= i < height and 0 <= j < width else np.zeros(image.shape[2])


def reference(name: str, image: np.ndarray, a: float) -> np.ndarray:
    """One image [H, W, 3], from the definition."""
    height, width = image.shape[:2]
    out = np.empty_like(image)
    mean = np.mean([[grey(pixel) for pixel in row] for row in image])
    for i in range(height):
        for j in range(width):
            pixel = image[i, j]
            match name:
                case "identity" | "autocontrast" | "equalize":  # of the whole channel, see below
                    value = pixel
                case "brightness":
                    value = blend(pixel, 0, a)
                case "contrast":
                    value = blend(pixel, mean, a)
                case "saturation":
                    value = blend(pixel, grey(pixel), a)
                case "sharpness":
                    value = pixel
                    if 0 < i < height - 1 and 0 < j < width - 1:
                        around = image[i - 1 : i + 2, j - 1 : j + 2].reshape(9, 3).sum(0) + 4 * pixel
                        value = blend(pixel, around / 13, a)
                case "hue":
                    h, s, v = colorsys.rgb_to_hsv(*pixel)
                    value = np.array(colorsys.hsv_to_rgb((h + a) % 1, s, v))
                case "posterize":
                    value = (np.rint(pixel * 255).astype(int) & ~((1 << (8 - int(a))) - 1)) / 255
                case "solarize":
                    value = np.where(pixel >= a, 1 - pixel, pixel)
                case "shear_x":
                    value = moved(image, i, j + a * (i + 0.5))
                case "shear_y":
                    value = moved(image, i + a * (j + 0.5), j)
                case "skew_x":
                    value = moved(image, i, j + a * (i + 0.5 - height / 2))
                case "skew_y":
                    value = moved(image, i + a * (j + 0.5 - width / 2), j)
                case "translate_x":
                    value = moved(image, i, j - int(a))
                case "translate_y":
                    value = moved(image, i - int(a), j)
                case "rotate":
                    y, x = i - (height - 1) / 2, j - (width - 1) / 2
                    t = math.radians(a)
                    value = moved(
                        image,
                        (height - 1) / 2 + math.sin(t) * x + math.cos(t) * y,
                        (width - 1) / 2 + math.cos(t) * x - math.sin(t) * y,
                    )
            out[i, j] = value
    if name == "autocontrast":
        for c in range(3):
            low, high = image[:, :, c].min(), image[:, :, c].max()
            out[:, :, c] = (image[:, :, c] - low) / (high - low) if high > low else image[:, :, c]
    if name == "equalize":
        for c in range(3):
            codes = np.rint(image[:, :, c] * 255).astype(int)
            counts = np.bincount(codes.ravel(), minlength=256)
            step = (codes.size - counts[codes.max()]) // 255
            if not step:
                out[:, :, c] = image[:, :, c]
                continue
            for i in range(height):
                for j in range(width):
                    below = counts[: codes[i, j]].sum()
                    out[i, j, c] = min(255, (below + step // 2) // step) / 255
    return out


def large() -> Tensor:
    """Images with enough pixels that equalising does something."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand((4, 3, 24, 40), generator=generator, dtype=torch.float64).square() * 255).round() / 255


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_its_definition(name: str) -> None:
    x = large() if name == "equalize" else images()
    found = OPERATIONS[name](x, amounts(name))
    for image, a, result in zip(x, amounts(name).tolist(), found, strict=True):
        expected = reference(name, image.permute(1, 2, 0).numpy(), a)
        assert np.allclose(result.permute(1, 2, 0).numpy(), expected, atol=1e-12, rtol=0), name


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_float32_results_stay_in_the_range_and_do_something(name: str, channels: int) -> None:
    x = images(channels).float()
    found = OPERATIONS[name](x.clone(), amounts(name).float())
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    idle = {"identity", "equalize"} | ({"hue", "saturation"} if channels == 1 else set())
    assert torch.equal(found, x) == (name in idle)  # so few pixels are not equalised


def test_grey_images_are_treated_as_colour_images_of_three_equal_channels() -> None:
    x = images(1)
    for name in OPERATIONS:
        wide = OPERATIONS[name](x.expand(-1, 3, -1, -1), amounts(name))
        assert torch.allclose(OPERATIONS[name](x, amounts(name)).expand_as(wide), wide, atol=1e-3), name


def torchvision() -> ModuleType:
    declare_operators_of_torchvision()
    return pytest.importorskip("torchvision.transforms.v2.functional")


def theirs(name: str, x: Tensor, a: float) -> Tensor:
    """torchvision's operation on one image, as its RandAugment calls it."""
    tv = torchvision()
    codes = (x * 255).round().to(torch.uint8)
    degrees = math.degrees(math.atan(a))
    plain = {"angle": 0.0, "scale": 1.0}
    match name:
        case "identity":
            return x
        case "brightness" | "contrast" | "saturation" | "hue" | "sharpness":
            return getattr(tv, f"adjust_{name}")(x, a)
        case "posterize":
            return tv.posterize(codes, int(a)) / 255
        case "solarize":
            return tv.solarize(x, a)
        case "autocontrast":
            return tv.autocontrast(x)
        case "equalize":
            return tv.equalize(codes) / 255
        case "shear_x":
            return tv.affine(x, translate=[0, 0], shear=[degrees, 0.0], center=[0, 0], **plain)
        case "shear_y":
            return tv.affine(x, translate=[0, 0], shear=[0.0, degrees], center=[0, 0], **plain)
        case "skew_x":
            return tv.affine(x, translate=[0, 0], shear=[degrees, 0.0], **plain)
        case "skew_y":
            return tv.affine(x, translate=[0, 0], shear=[0.0, degrees], **plain)
        case "translate_x":
            return tv.affine(x, translate=[int(a), 0], shear=[0.0, 0.0], **plain)
        case "translate_y":
            return tv.affine(x, translate=[0, int(a)], shear=[0.0, 0.0], **plain)
    assert name == "rotate"
    return tv.rotate(x, a)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_torchvisions(name: str) -> None:
    x = large() if name == "equalize" else images()
    for image, a in zip(x, amounts(name).tolist(), strict=True):
        found = OPERATIONS[name](image[None], torch.tensor([a], dtype=torch.float64))[0]
        expected = theirs(name, image, a).double()
        if name in MOVING:  # a tie between two pixels may go either way
            assert (found != expected).double().mean() < 0.02, name
        else:
            assert torch.allclose(found, expected, atol=2e-6), name
