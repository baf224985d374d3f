"""Types that all parts of the package share: batches, losses, models and errors of the user."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import torch
import tyro
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regmix.errors import Doubt as Doubt
from regmix.errors import Interrupted as Interrupted
from regmix.errors import UserError as UserError
from regmix.errors import brief as brief
from regmix.errors import few as few
from regmix.errors import first_line as first_line
from regmix.errors import known as known
from regmix.errors import require as require

T = TypeVar("T")
Tag = Annotated[T, tyro.conf.Suppress]
"""Marks a field that names its class in a config file. The command line does not show it."""

Images = Float[Tensor, "batch channels height width"]
Logits = Float[Tensor, "batch classes"]
Labels = Int[Tensor, "batch"]
Target = Labels | Logits
"""Class indices, or one probability distribution per example."""
PerExample = Float[Tensor, "batch"]

Model = Callable[[Tensor], Tensor]
"""Maps images [B, C, H, W] in [0, 1] to logits [B, classes]; it normalises its input itself."""
Objective = Callable[[Tensor, Tensor], Tensor]
"""Maps (logits, target) to one loss per example."""


class View(NamedTuple):
    """Random crop and flip of each example: the offset of its window in the zero-padded image, and if it is flipped.

    top and left are in pixels, in [0, 2 * pad]. The crop comes first, then the flip, then pixels are hidden.
    """

    top: Int[Tensor, "batch"]
    left: Int[Tensor, "batch"]
    flip: Bool[Tensor, "batch"]
    hidden: Bool[Tensor, "batch 1 height width"] | None = None
    """True where a pixel of the batch shows nothing of the image, because it is erased; None: no pixel is hidden."""


class Batch(NamedTuple):
    """A batch of images and their labels.

    Where labels are given as probabilities, `as_batch` puts them into `soft` and their most likely class into `y`.
    """

    x: Images
    """Images in [0, 1]."""
    y: Labels
    """Class indices."""
    index: Int[Tensor, "batch"] | None = None  # type: ignore[assignment]  # hides tuple.index, of no use here
    """Positions in the training set, for methods that remember something about every image."""
    view: View | None = None
    """What the batch shows of each image; None without augmentation."""
    weight: float = 1.0
    """Factor on the mean loss. The shares of several processes may differ by one example; with the factor, the mean
    over the processes is the mean over the whole batch."""
    soft: Logits | None = None
    """Probabilities [B, classes] where labels are soft, such as with label smoothing; None means class indices."""
    importance: PerExample | None = None
    """Factor on each example's loss of classification, whose mean over the training images is 1; None means 1."""

    @property
    def target(self) -> Target:
        """The labels of the loss: `soft` where labels are soft, else `y`."""
        return self.y if self.soft is None else self.soft

    def mean(self, losses: PerExample) -> Tensor:
        """The mean over the examples, each with its importance; every method's term `classify` is such a mean."""
        return losses.mean() if self.importance is None else (self.importance * losses).mean()


class Clock(NamedTuple):
    """How far a training is: the step that is about to be made."""

    epoch: int
    """Completed epochs: the current epoch, counted from 0."""
    epochs: int
    """Epochs of the whole training."""
    step: int
    """Completed steps of the current epoch; steps that were left out are not counted."""
    steps: int
    """Steps of an epoch."""

    @property
    def done(self) -> int:
        """Completed steps of the whole training."""
        return self.epoch * self.steps + self.step


class Losses(NamedTuple):
    """What a method computes for a batch."""

    terms: dict[str, Tensor]
    """The weighted terms of the loss, as scalars."""
    logits: Tensor
    """The logits [B, classes] that count as the prediction of the batch (training accuracy)."""
    stats: dict[str, Tensor]
    """Statistics for weight averaging and the log, as scalars on the device. A statistic with the name of a term is
    the term without its weight."""

    @property
    def total(self) -> Tensor:
        """The sum of the terms, which is what training minimises."""
        first, *rest = self.terms.values()
        for term in rest:
            first = first + term
        return first


@dataclass(frozen=True)
class Fingerprint:
    """A summary of a set of images, by which it is recognised later."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    counts: tuple[int, ...]
    """Images per class."""
    kind: Literal["pixels", "files"]
    """What the digest covers: labels and pixels, or labels and the names and sizes of files if images are decoded on
    access."""
    digest: str
    times: str = ""
    """Digest of the times at which the files were last changed."""

    @property
    def content(self) -> "Fingerprint":
        """Without the times: files that were written again with the same names and sizes have the same content."""
        return replace(self, times="")

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.counts)


@dataclass(frozen=True)
class Sample:
    """How many images of a split were used, and how they were drawn."""

    count: int
    of: int
    """Images in the split."""
    how: Literal["all", "stratified", "first"]
    seed: int = 0
    """Seed of the draw; 0 if nothing is drawn."""

    def text(self, images: str = "test images") -> str:
        """The sample in words, such as "500 of 10,000 test images, drawn evenly from the classes (seed 0)"."""
        if self.how == "all":
            return f"all {self.of:,} {images}"
        if self.how == "first":
            return f"the first {self.count:,} of {self.of:,} {images}"
        return f"{self.count:,} of {self.of:,} {images}, drawn evenly from the classes (seed {self.seed})"


@dataclass(frozen=True)
class OneAnswer:
    """The class that a model predicts for nearly every image, and the share of images for which it does, in [0, 1]."""

    name: str
    share: float

    def text(self, images: str) -> str:
        """The finding in words; `images` names the images, such as "the test images"."""
        return f'the model answers "{self.name}" for {100 * self.share:.1f}% of {images}, whatever they show'


@dataclass(frozen=True)
class Trust:
    """Which of the code that files name the user allows to run. A file itself cannot allow anything."""

    named: str | None = None
    """The module:function of a model that the user has named in this call or on this command line."""
    everything: bool = False
    """Allow all code: --trust-code."""
    data: str | None = None
    """The module:function of data that the user has named in this call or on this command line."""

    def check(self, source: str, asker: Path, part: Literal["model", "data"] = "model") -> None:
        """Raises UserError unless the user allows the code `source` of a model or of data, which `asker` names."""
        if not self.everything and source != (self.named if part == "model" else self.data):
            in_python = f"source={source!r} or trust_code=True" if part == "model" else f"Trust(data={source!r})"
            raise UserError(
                f"{asker} asks for the code {source}, which would be imported from {Path.cwd()}; allow it with "
                f"--{part}.source {source} or --trust-code (in Python: {in_python})"
            )


NO_TRUST = Trust()


def as_batch(given: object) -> Batch:
    """A Batch from what a loader gives: a Batch, or (images, labels) with class indices or probabilities [B, classes].

    Checks types and shapes, which does not wait for a device. `check_values` checks the numbers.

    Raises:
        UserError: not images [B, C, H, W] in float32 or float64, not one label per image, an empty batch, or tensors on
            two devices.
    """
    if not isinstance(given, Batch):
        if not (isinstance(given, tuple | list) and len(given) == 2):
            parts = f" of {len(given)}" if isinstance(given, tuple | list) else ""
            raise UserError(f"a batch is Batch(x, y) or (x, y), images and labels, not {type(given).__name__}{parts}")
        given = Batch(*given)
    x, y = given.x, given.y if given.soft is None else given.soft
    for name, value in (("images", x), ("labels", y)):
        if not isinstance(value, Tensor):
            raise UserError(f"the {name} are {type(value).__name__}; make a tensor of them with torch.as_tensor")
    if x.ndim != 4:
        raise UserError(f"images have the shape {list(x.shape)}; they must be [batch, channels, height, width]")
    if x.dtype not in (torch.float32, torch.float64):
        how = "x.float() / 255" if x.dtype == torch.uint8 else "x.float(), and torch.autocast for speed"
        raise UserError(f"images are {_dtype(x)}; they must be float32 (or float64) in [0, 1]: {how}")
    if len(x) == 0:
        raise UserError("the batch is empty; it needs at least one image")
    if y.ndim == 0 or len(y) != len(x):
        raise UserError(f"labels have the shape {list(y.shape)} for {len(x)} images; give one per image")
    if y.device != x.device:
        raise UserError(f"labels are on {y.device} and images on {x.device}; move one to the other")
    if given.soft is None and y.ndim == 1 and not (y.is_floating_point() or y.is_complex()):
        return given._replace(y=y.long())
    if y.ndim != 2 or not y.is_floating_point() or y.shape[1] < 2:
        raise UserError(
            f"labels are {_dtype(y)} {list(y.shape)}; give class indices [{len(x)}], such as y.long(), "
            f"or probabilities [{len(x)}, classes]"
        )
    return given._replace(y=y.argmax(1), soft=y) if given.soft is None else given


def check_values(batch: Batch) -> None:
    """Checks the values of a batch, which waits for its device.

    Raises:
        UserError: images are not finite or leave [0, 1] by more than `ROUNDING`, a label is below 0, or soft labels are
            not probabilities.
    """
    low, high = (float(end) for end in torch.aminmax(batch.x))
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        if not low <= high or high == float("inf") or low == float("-inf"):
            raise UserError("the images hold NaN or infinity; check the code that loads them")
        how = "divide them by 255" if low >= 0 and high > 2 else "leave normalisation to the model"
        raise UserError(f"images lie in [{low:.3g}, {high:.3g}]; they must lie in [0, 1]: {how}")
    if batch.soft is not None:
        if not (float(batch.soft.min()) >= 0 and float((batch.soft.sum(1) - 1).abs().max()) <= 1e-3):
            raise UserError("labels [batch, classes] must be probabilities: none below 0, every row's sum 1")
    elif int(batch.y.min()) < 0:
        raise UserError(f"a label is {int(batch.y.min())}; classes count from 0")


ROUNDING = 1e-6
"""How far outside of [0, 1] images may lie, because of rounding."""


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


LEAST, MOST = 1e-12, 1e6
"""Smallest and largest absolute value of a float setting other than 0. Products of a few such numbers fit into
float32."""
MOST_WHOLE = 2**42
"""Largest absolute value of an integer setting. A seed times 1,000,003 plus an offset then fits into 64 bits."""


def check_bounds(settings: object, prefix: str = "") -> None:
    """Raises UserError for a number in (nested) dataclasses that is too large or too small for the arithmetic."""
    for name, value in vars(settings).items():
        if is_dataclass(value):
            check_bounds(value, f"{prefix}{name}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                fits = number == 0 or LEAST <= abs(number) <= MOST  # False for NaN
                require(fits, f"{prefix}{name} is {number}; its size must be 0 or lie in [{LEAST:g}, {MOST:g}]")
            elif isinstance(number, int):
                # The message leaves the number out: Python refuses to print integers of thousands of digits.
                require(abs(number) <= MOST_WHOLE, f"{prefix}{name} is too large; it must not exceed {MOST_WHOLE:,}")
