"""Random crops and flips of whole batches, hidden pixels, and their inverse."""

import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Generator, Tensor

from regmix.types import View

Maps = Shaped[Tensor, "batch channels height width"]


def draw_views(n: int, pad: int, flip: bool, generator: Generator) -> View:
    """Draws n views: crop offsets uniform on {0, ..., 2 * pad}^2, flipped with probability 1/2 if `flip`.

    The tensors are on the generator's device.
    """
    device = generator.device
    top, left = torch.randint(2 * pad + 1, (2, n), generator=generator, device=device)
    coin = torch.randint(2, (n,), generator=generator, device=device, dtype=torch.bool)
    return View(top, left, coin if flip else torch.zeros_like(coin))


def take(
    padded: UInt8[Tensor, "examples channels padded_height padded_width"],
    index: Int[Tensor, "batch"],
    view: View,
    pad: int,
) -> UInt8[Tensor, "batch channels height width"]:
    """Crops and flips the images at `index`, which are already padded by `pad` pixels on every side.

    uint8 [N, C, H + 2 pad, W + 2 pad] -> [B, C, H, W], in the memory format of `padded`.
    """
    height, width = padded.shape[2] - 2 * pad, padded.shape[3] - 2 * pad
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    shown = windows[index, :, view.top, view.left]
    return _mirrored(shown, view)


def _mirrored(values: Maps, view: View) -> Maps:
    return torch.where(view.flip[:, None, None, None], values.flip(-1), values)


def _gather(source: Maps, row: Int[Tensor, "batch height"], column: Int[Tensor, "batch width"], outside: Maps) -> Maps:
    """source[b, :, row[b, i], column[b, j]] at [b, :, i, j], or `outside` where the indices are out of range."""
    height, width = source.shape[2:]
    example = torch.arange(len(source), device=source.device)[:, None, None]
    i, j = row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]
    gathered = source[example, :, i, j].movedim(-1, 1)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    return torch.where(inside[:, None], gathered, outside)


def to_view(values: Maps, view: View, pad: int) -> Maps:
    """Crops and flips per-pixel values [B, C, H, W] of whole images as the views do.

    Zero beyond the border and in hidden pixels.
    """
    shown = _cropped(values, view, pad)
    return shown if view.hidden is None else torch.where(view.hidden, torch.zeros_like(shown), shown)


def _cropped(values: Maps, view: View, pad: int) -> Maps:
    if not pad:
        return _mirrored(values, view)
    height, width = values.shape[2:]
    i = torch.arange(height, device=values.device)
    j = torch.arange(width, device=values.device)
    row = (view.top - pad)[:, None] + i
    column = (view.left - pad)[:, None] + torch.where(view.flip[:, None], width - 1 - j, j)
    return _gather(values, row, column, torch.zeros_like(values))


def from_view(seen: Maps, view: View, pad: int, onto: Maps) -> Maps:
    """Puts values [B, C, H, W] seen through the views back to their place in the whole images.

    Pixels outside the view, and hidden ones, keep the values of `onto`:
    from_view(to_view(v, view, pad), view, pad, onto=v) == v.
    """
    if view.hidden is not None:
        seen = torch.where(view.hidden, _cropped(onto, view, pad), seen)
    if not pad:
        return _mirrored(seen, view)
    height, width = seen.shape[2:]
    i = torch.arange(height, device=seen.device)
    j = torch.arange(width, device=seen.device)
    row = (pad - view.top)[:, None] + i
    column = (pad - view.left)[:, None] + j
    column = torch.where(view.flip[:, None], width - 1 - column, column)
    return _gather(seen, row, column, onto)
