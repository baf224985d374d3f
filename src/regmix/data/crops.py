"""Random crops other than those of a padded image: crops that are shifted, and crops that are resized."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from regmix.types import Images, Tag, View, require

Noise = Float64[Tensor, "batch draws"]
"""Independent uniform numbers in [0, 1), on the host."""
Rectangles = Int64[Tensor, "batch 4"]
"""Top, left, height and width in pixels."""

ATTEMPTS = 10
"""How often a rectangle is drawn until one fits."""
RECTANGLE_DRAWS = 2 * ATTEMPTS + 2


@dataclass(frozen=True)
class NoCrop:
    """No crops but those of --pad."""

    name: Tag[Literal["none"]] = field(default="none", kw_only=True)


@dataclass(frozen=True)
class CropShift:
    """Cuts a rectangle out of the image and puts it to another place of a black image (IDBH, arXiv 2301.09879).

    A strength s is uniform on {least, ..., most}. Of the height s_y pixels are cut off, and of the width s_x; the place
    of the rectangle in the old and in the new image is uniform. No pixel is interpolated, so that remembered
    perturbations move with the image.
    """

    name: Tag[Literal["crop_shift"]] = field(default="crop_shift", kw_only=True)
    least: int = 0
    """Smallest strength in pixels."""
    most: int = 11
    """Largest strength in pixels. The public code has the range 0 to 11 for CIFAR-10, of which 11 itself is not drawn:
    most=10."""
    sides: Literal["shared", "each"] = "shared"
    """How the strength s determines the pixels cut off in height and width. shared, as in the public code: s_x is
    uniform on {0, ..., s} and s_y = s - s_x. each: s_x = s_y = s."""

    def __post_init__(self) -> None:
        require(0 <= self.least <= self.most, f"crop least is {self.least}; it must lie in 0..{self.most} (crop most)")

    draws = 6

    def rectangles(self, noise: Noise, height: int, width: int) -> tuple[Rectangles, Rectangles]:
        """The rectangles that are cut out, and where they are put: of the same sizes."""
        strength = self.least + whole(noise[:, 0], torch.full_like(noise[:, 0], self.most - self.least).long())
        across = whole(noise[:, 1], strength) if self.sides == "shared" else strength
        down = strength - across if self.sides == "shared" else strength
        top, left, new_top, new_left = (
            whole(noise[:, 2 + place], cut) for place, cut in enumerate((down, across, down, across))
        )
        size = [height - down, width - across]
        return torch.stack([top, left, *size], 1), torch.stack([new_top, new_left, *size], 1)


@dataclass(frozen=True)
class ResizedCrop:
    """A rectangle of random area and shape, resized to the whole image (GoogLeNet, arXiv 1409.4842).

    Its share of the image's area is uniform in `scale`, its width divided by its height log-uniform in `ratio`, its
    place uniform; after ten rectangles that do not fit, the largest one of an allowed shape in the centre. Bilinear, as
    torchvision's RandomResizedCrop. Methods that remember a perturbation per image cannot follow it.
    """

    name: Tag[Literal["resized_crop"]] = field(default="resized_crop", kw_only=True)
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area, in (0, 1]."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width divided by height."""

    def __post_init__(self) -> None:
        check_ranges("crop", self.scale, self.ratio)

    draws = RECTANGLE_DRAWS

    def rectangles(self, noise: Noise, height: int, width: int) -> Rectangles:
        """The rectangles that are resized."""
        found, fits = draw_rectangles(noise, height, width, self.scale, self.ratio, most=(height, width))
        shape = min(max(width / height, self.ratio[0]), self.ratio[1])
        high, wide = (round(width / shape), width) if shape > width / height else (height, round(height * shape))
        centre = torch.tensor([(height - high) // 2, (width - wide) // 2, high, wide])
        return torch.where(fits[:, None], found, centre)


CropConfig = NoCrop | CropShift | ResizedCrop


def check_ranges(part: str, scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Raises UserError unless shares of the area lie in (0, 1] and ratios are positive, each in increasing order."""
    require(0 < scale[0] <= scale[1] <= 1, f"{part} scale is {scale}; give two shares in (0, 1], the smaller first")
    require(0 < ratio[0] <= ratio[1], f"{part} ratio is {ratio}; give two positive ratios, the smaller first")


def whole(noise: Float64[Tensor, "batch"], most: Int64[Tensor, "batch"]) -> Int64[Tensor, "batch"]:
    """Uniform on {0, ..., most}, one number per row."""
    return (noise * (most + 1)).floor().long()


def draw_rectangles(
    noise: Noise, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], most: tuple[int, int]
) -> tuple[Rectangles, Bool[Tensor, "batch"]]:
    """Rectangles of random area and shape at a uniform place, and which of them fit: into `most` (height, width).

    The first of ten that fits counts.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * noise[:, :ATTEMPTS])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = (low + (high - low) * noise[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    heights, widths = (area / shape).sqrt().round().long(), (area * shape).sqrt().round().long()
    fitting = (heights >= 1) & (heights <= most[0]) & (widths >= 1) & (widths <= most[1])
    first = fitting.long().argmax(1, keepdim=True)
    h, w = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
    fits = fitting.any(1)
    h, w = torch.where(fits, h, 1), torch.where(fits, w, 1)
    top, left = whole(noise[:, -2], height - h), whole(noise[:, -1], width - w)
    return torch.stack([top, left, h, w], 1), fits


def inside(rectangles: Int64[Tensor, "batch 4"], height: int, width: int) -> Bool[Tensor, "batch 1 height width"]:
    """Where the pixels of an image lie in its rectangle."""
    top, left, h, w = rectangles.T[:, :, None]
    i = torch.arange(height, device=rectangles.device)
    j = torch.arange(width, device=rectangles.device)
    rows, columns = (i >= top) & (i < top + h), (j >= left) & (j < left + w)
    within: Tensor = rows[:, None, :, None] & columns[:, None, None]
    return within


def shifted(view: View, cut: Rectangles, put: Rectangles, pad: int) -> View:
    """The view, with the offsets and the hidden pixels of these shifts; `pad` is the border that they look into."""
    offset = (cut[:, :2] - put[:, :2] + pad).to(view.flip.device)
    return view._replace(top=offset[:, 0], left=offset[:, 1])


def resized(x: Images, rectangles: Int64[Tensor, "batch 4"]) -> Images:
    """Resizes a rectangle of each image [B, C, H, W] to the whole image, bilinearly (torch's align_corners=False)."""
    top, left, h, w = rectangles.T
    return _stretched(_stretched(x, 2, top, h), 3, left, w)


def _stretched(x: Images, dim: int, first: Int64[Tensor, "batch"], count: Int64[Tensor, "batch"]) -> Images:
    """Resizes `count` rows (dim 2) or columns (dim 3) from `first` on to all of them."""
    size = x.shape[dim]
    last = (count - 1)[:, None]
    centre = (torch.arange(size, device=x.device, dtype=torch.float64) + 0.5) * (count[:, None] / size) - 0.5
    centre = torch.minimum(centre.clamp_min(0), last)
    low = centre.floor().long()
    share = (centre - low).to(x.dtype)
    high = torch.minimum(low + 1, last)

    def spread(values: Tensor) -> Tensor:
        return values[:, None, :, None] if dim == 2 else values[:, None, None, :]

    before, after = (x.gather(dim, spread(first[:, None] + k).expand_as(x)) for k in (low, high))
    return torch.lerp(before, after, spread(share).expand_as(x))
