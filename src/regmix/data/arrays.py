"""Images that Python code holds: arrays, tensors, and map-style data sets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regmix.data.decode import is_transparent, is_turned, to_rgb
from regmix.data.images import ImageSet
from regmix.data.stored import TOLD
from regmix.types import UserError, first_line, require

TOLD_OF_PILLOW = {
    "transparent": TOLD["transparent"],
    "turned": "have an EXIF orientation, which is not applied: apply PIL.ImageOps.exif_transpose in the data set",
}
"""What is told about the Pillow images of a data set."""
RECHECKED = 3
"""So many items of a data set are read twice, to find out whether they change."""


def image_set(given: Any, classes: Sequence[str] | None = None, source: str = "the images") -> ImageSet:
    """An ImageSet of images that Python code holds.

    Args:
        given: an ImageSet; (x, y) or (x, y, classes) with arrays or tensors, x of [N, C, H, W] with one or three
            channels (RGB), uint8 or floats in [0, 1], y integers [N]; or a map-style data set, with `len`, whose items
            are (image, label): an array or tensor [C, H, W] like x, or a Pillow image.
        classes: the names of the classes. Without them: those of `given` (the third entry, or its attribute
            `classes`), else the numbers up to the largest label.
        source: names the images in errors.

    Floats are rounded to the 256 grey levels of 8-bit images; a note says so where that changes them.

    Raises:
        UserError: another shape or order of axes, NaN, values outside of [0, 1], a label that is not a class, a data
            set whose items change from one access to the next, or images of several sizes.
    """
    if isinstance(given, ImageSet):
        require(classes is None or tuple(classes) == given.classes, f"{source} has classes of its own; leave them out")
        return given
    if isinstance(given, tuple | list) and len(given) in (2, 3) and hasattr(given[0], "shape"):
        x, y = _tensor(given[0], f"x of {source}"), _tensor(given[1], f"y of {source}")
        told: tuple[str, ...] = ()
        own = tuple(given[2]) if len(given) == 3 and given[2] is not None else None
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        x, y, told = _items(given, source)
        own = tuple(given.classes) if hasattr(given, "classes") else None
    else:
        raise UserError(
            f"{source} is {type(given).__name__}; give (x, y) arrays, or a data set with len whose items are "
            "(image, label)"
        )
    pixels, notes = _pixels(x, source)
    notes = (*notes, *told)
    named = own if classes is None else tuple(classes)
    labels, names = _labels(y, len(pixels), named if named is None else tuple(map(str, named)), source)
    return ImageSet(pixels, labels, names, notes)


def _tensor(values: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} is no array of numbers ({first_line(error)})") from None
    return tensor.detach().cpu()


def _items(given: Any, source: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """All images and labels of a data set, and what a user might not expect about them."""
    require(len(given) > 0, f"{source} has no items; it needs at least one image")
    images, labels, found = zip(*(_item(given, number, source) for number in range(len(given))), strict=True)
    for number in range(min(RECHECKED, len(given))):
        again, _, _ = _item(given, number, source)
        require(
            torch.equal(again, images[number]),
            f"{source}: item {number} differs from one access to the next; leave its random transforms out, and use "
            "those of regmix (--flip, --crop, --colour)",
        )
    for number, image in enumerate(images):
        require(
            image.shape == images[0].shape and image.dtype == images[0].dtype,
            f"{source}: item {number} is {image.dtype} {list(image.shape)} but the first is {images[0].dtype} "
            f"{list(images[0].shape)}; all images must have the same size and type",
        )
    counts = {text: sum(what in each for each in found) for what, text in TOLD_OF_PILLOW.items()}
    told = tuple(f"{count:,} of {len(images):,} images {text}" for text, count in counts.items() if count)
    return torch.stack(images), _tensor([int(label) for label in labels], f"the labels of {source}"), told


def _item(given: Any, number: int, source: str) -> tuple[Tensor, Any, set[str]]:
    """An image, its label, and what of `TOLD_OF_PILLOW` is true of it."""
    told = set[str]()
    try:
        image, label, *_ = given[number]
    except Exception as error:  # of the user's code
        raise UserError(
            f"{source}: item {number} is not (image, label): {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if hasattr(image, "convert"):  # a Pillow image
        told = {name for name, holds in (("transparent", is_transparent), ("turned", is_turned)) if holds(image)}
        try:
            pixels = np.asarray(image.convert("L") if image.mode in ("1", "L") else to_rgb(image))
        except ValueError as error:
            raise UserError(f"{source}: the image of item {number} cannot be read: {error}") from None
        image = np.atleast_3d(pixels).transpose(2, 0, 1).copy()
    tensor = _tensor(image, f"{source}: the image of item {number}")
    whole = _tensor(label, f"{source}: the label of item {number}")
    kind = f"{type(label).__name__} {list(whole.shape)}" if whole.numel() != 1 else repr(label)
    require(
        whole.numel() == 1 and not whole.is_floating_point() and whole.dtype != torch.bool,
        f"{source}: the label of item {number} is {kind}; it must be the number of a class, counted from 0",
    )
    return tensor, whole, told


def _pixels(x: Tensor, source: str) -> tuple[Tensor, tuple[str, ...]]:
    """The images as uint8 [N, C, H, W], and notes on what that changed."""
    shape = list(x.shape)
    require(x.ndim == 4, f"{source} has the shape {shape}; images must be [N, channels, height, width]")
    require(len(x) > 0, f"{source} has no images; it needs at least one")
    if x.shape[1] not in (1, 3):
        hint = "; its channels are last: use x.transpose(0, 3, 1, 2)" if x.shape[3] in (1, 3) else ""
        raise UserError(f"{source} has the shape {shape}; images must be [N, 1 or 3 channels, height, width]{hint}")
    if x.dtype == torch.uint8:
        require(
            int(x.max()) > 1,
            f"{source} is uint8 with values 0 and 1 only, which is black; give values of 0..255, or floats in [0, 1]",
        )
        return x.contiguous(), ()
    require(
        x.is_floating_point(),
        f"{source} is {str(x.dtype).removeprefix('torch.')}; give uint8 in 0..255 or floats in [0, 1]",
    )
    low, high = (float(end) for end in torch.aminmax(x))
    require(bool(x.isfinite().all()), f"{source} holds NaN or infinity; check the code that makes it")
    if low < 0 or high > 1:
        how = "divide by 255" if low >= 0 and high > 2 else "leave normalisation to the model"
        raise UserError(f"{source} lies in [{low:.3g}, {high:.3g}]; images must lie in [0, 1]: {how}")
    require(high > 1.5 / 255, f"{source} lies in [{low:.3g}, {high:.3g}], which is black; was it divided by 255 twice?")
    codes = (x.double() * 255).round()
    change = float((codes / 255 - x.double()).abs().max())
    notes = (f"{source}: values were rounded to 8 bits, by at most {change:.4f}",) if change > 1e-6 else ()
    return codes.to(torch.uint8).contiguous(), notes


def _labels(
    y: Tensor, count: int, names: tuple[str, ...] | None, source: str
) -> tuple[Tensor, tuple[str, ...]]:  # fmt: skip
    """The labels as int64 [N], and the names of the classes."""
    kind = str(y.dtype).removeprefix("torch.")
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    require(
        whole and y.shape == (count,),
        f"the labels of {source} are {kind} {list(y.shape)}; give one integer per image: [{count}]",
    )
    labels = y.long()
    if names is None:
        names = tuple(map(str, range(int(labels.max()) + 1)))
    require(len({*names}) == len(names), f"{source} has two classes of the same name; give each a name of its own")
    wrong = ((labels < 0) | (labels >= len(names))).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise UserError(f"{source}: the label of image {row} is {int(labels[row])}; it must lie in 0..{len(names) - 1}")
    return labels.contiguous(), names
