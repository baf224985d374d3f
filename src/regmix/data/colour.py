"""Operations on colours and shapes of whole batches: images [B, C, H, W] in [0, 1], with one amount per image.

One or three channels. They are those of Pillow and torchvision; parity is tested. Each result stays in [0, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from regmix.types import Images

Amounts = Float[Tensor, "batch"]
Operation = Callable[[Images, Amounts], Images]
GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, rounded as in torchvision)."""


def _grey(x: Images) -> Float[Tensor, "batch 1 height width"]:
    if x.shape[1] == 1:
        return x
    red, green, blue = (x[:, k : k + 1] for k in range(3))
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _blend(x: Images, other: Tensor, share: Amounts) -> Images:
    """share x + (1 - share) other, in [0, 1]."""
    s = share[:, None, None, None]
    return (s * x + (1 - s) * other).clamp(0, 1)


def identity(x: Images, amount: Amounts) -> Images:
    """The images as they are."""
    return x


def brightness(x: Images, factor: Amounts) -> Images:
    """Times the factor."""
    return _blend(x, torch.zeros_like(x), factor)


def contrast(x: Images, factor: Amounts) -> Images:
    """Away from (factor > 1) or towards the image's mean grey."""
    return _blend(x, _grey(x).mean((2, 3), keepdim=True), factor)


def saturation(x: Images, factor: Amounts) -> Images:
    """Away from (factor > 1) or towards the grey of each pixel."""
    return x if x.shape[1] == 1 else _blend(x, _grey(x), factor)


def sharpness(x: Images, factor: Amounts) -> Images:
    """Away from (factor > 1) or towards a 3x3 blur, whose centre weighs 5/13; pixels of the border stay."""
    if min(x.shape[2:]) < 3:
        return x
    blurred = x.clone()
    inner = x[:, :, 1:-1, 1:-1]
    blurred[:, :, 1:-1, 1:-1] = (9 * F.avg_pool2d(x, 3, 1) + 4 * inner) / 13
    return _blend(x, blurred, factor)


def hue(x: Images, shift: Amounts) -> Images:
    """Turns the hue (HSV) by a share of the full circle, in [-0.5, 0.5]. Grey images stay as they are."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    angle = torch.where(
        value == red, (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )  # fmt: skip
    turned = angle + 6 * shift[:, None, None]
    k = [(turned + n).remainder(6) for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in k], 1).clamp(0, 1)


def posterize(x: Images, bits: Amounts) -> Images:
    """Keeps the highest bits of the 8-bit values."""
    step = torch.exp2(8 - bits)[:, None, None, None]
    return (x * 255).round().div(step).floor() * step / 255


def solarize(x: Images, threshold: Amounts) -> Images:
    """Inverts the values from the threshold on."""
    return torch.where(x >= threshold[:, None, None, None], 1 - x, x)


def autocontrast(x: Images, amount: Amounts) -> Images:
    """Stretches each channel to [0, 1]; a channel of one value stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    spread = torch.where(high > low, high - low, 1)
    return torch.where(high > low, ((x - low) / spread).clamp(0, 1), x)


def equalize(x: Images, amount: Amounts) -> Images:
    """Equalises the histogram of the 8-bit values of each channel, as Pillow does."""
    codes = (x * 255).round().long().flatten(2)
    counts = torch.zeros((*codes.shape[:2], 256), dtype=torch.long, device=x.device)
    counts.scatter_add_(2, codes, torch.ones_like(codes))
    brightest = counts.gather(2, codes.amax(2, keepdim=True))
    step = (codes.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = torch.where(step > 0, (below + step // 2) // step.clamp_min(1), torch.arange(256, device=x.device))
    return (table.clamp(0, 255).gather(2, codes).to(x.dtype) / 255).view_as(x)


def shear_x(x: Images, slope: Amounts) -> Images:
    """Shifts each row to the left, by slope times its distance from the upper edge."""
    return _moved(x, (1, slope, 0), (0, 1, 0))


def shear_y(x: Images, slope: Amounts) -> Images:
    """Shifts each column up, by slope times its distance from the left edge."""
    return _moved(x, (1, 0, 0), (slope, 1, 0))


def translate_x(x: Images, pixels: Amounts) -> Images:
    """Shifts the image to the right by whole pixels (rounded towards 0)."""
    return _moved(x, (1, 0, -pixels.trunc()), (0, 1, 0))


def translate_y(x: Images, pixels: Amounts) -> Images:
    """Shifts the image down by whole pixels (rounded towards 0)."""
    return _moved(x, (1, 0, 0), (0, 1, -pixels.trunc()))


def rotate(x: Images, degrees: Amounts) -> Images:
    """Rotates the image about its centre, counter-clockwise."""
    angle = degrees.double().deg2rad()
    cos, sin = angle.cos(), angle.sin()
    height, width = x.shape[2:]
    middle = width / 2, height / 2
    across = cos, -sin, middle[0] - cos * middle[0] + sin * middle[1]
    down = sin, cos, middle[1] - sin * middle[0] - cos * middle[1]
    return _moved(x, across, down)


def skew_x(x: Images, slope: Amounts) -> Images:
    """Shifts each row to the left, by slope times its distance below the middle."""
    return _moved(x, (1, slope, -slope.double() * x.shape[2] / 2), (0, 1, 0))


def skew_y(x: Images, slope: Amounts) -> Images:
    """Shifts each column up, by slope times its distance to the right of the middle."""
    return _moved(x, (1, 0, 0), (slope, 1, -slope.double() * x.shape[3] / 2))


Row = tuple[Tensor | float, Tensor | float, Tensor | float]


def _moved(x: Images, across: Row, down: Row) -> Images:
    """The image whose pixel with centre (u, v) is the nearest one to (across, down) . (u, v, 1); black beyond it.

    u counts columns and v counts rows, from the edge of the image.
    """
    height, width = x.shape[2:]
    v = torch.arange(height, device=x.device, dtype=torch.float64)[None, :, None] + 0.5
    u = torch.arange(width, device=x.device, dtype=torch.float64)[None, None, :] + 0.5

    def source(row: Row, limit: int) -> tuple[Tensor, Tensor]:
        a, b, c = (torch.as_tensor(part, dtype=torch.float64, device=x.device).view(-1, 1, 1) for part in row)
        place = (a * u + b * v + c).floor().long().expand(len(x), height, width)
        return place.clamp(0, limit - 1), (place >= 0) & (place < limit)

    (column, on_row), (row, on_column) = source(across, width), source(down, height)
    flat = (row * width + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    values = x.flatten(2).gather(2, flat).view(x.shape)
    return torch.where((on_row & on_column)[:, None], values, 0)


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (
        *(identity, shear_x, shear_y, translate_x, translate_y, rotate, brightness, saturation, contrast, sharpness),
        *(posterize, solarize, autocontrast, equalize, hue, skew_x, skew_y),
    )
}
"""The operations by name."""
MOVING = frozenset(("shear_x", "shear_y", "skew_x", "skew_y", "translate_x", "translate_y", "rotate"))
"""Operations that move pixels."""
