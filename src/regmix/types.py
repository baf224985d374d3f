"""The values that travel between the parts: a batch of images, what a method makes of it, and their types."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import torch
import tyro
from jaxtyping import Bool, Float, Int
from torch import Tensor

T = TypeVar("T")
Tag = Annotated[T, tyro.conf.Suppress]
"""Marks a field that only names its class in a config file; the command line does not show it."""

Images = Float[Tensor, "batch channels height width"]
Logits = Float[Tensor, "batch classes"]
Labels = Int[Tensor, "batch"]
Target = Labels | Logits
"""Class indices, or one probability distribution per example."""
PerExample = Float[Tensor, "batch"]

Model = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] in [0, 1] to logits [B, classes]; normalisation happens inside."""
Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits, target) to one loss per example."""


class View(NamedTuple):
    """Which window of its zero-padded image each example shows, and whether it is mirrored.

    top and left lie in [0, 2 * pad]; the crop is taken first, then the mirror image.
    """

    top: Int[Tensor, "batch"]
    left: Int[Tensor, "batch"]
    flip: Bool[Tensor, "batch"]


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

    @property
    def target(self) -> Target:
        """The labels of the loss: `soft` where labels are soft, else `y`."""
        return self.y if self.soft is None else self.soft


class Clock(NamedTuple):
    """How far a training is: the step that is about to be made."""

    epoch: int
    """Completed epochs: the current epoch, counted from 0."""
    epochs: int
    """Epochs of the whole training."""
    step: int
    """Completed steps of the current epoch."""
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
    """What a set of images holds, so that it is recognised later."""

    classes: tuple[str, ...]
    """Their names, in the order of the labels."""
    counts: tuple[int, ...]
    """Images per class."""
    kind: Literal["pixels", "files"]
    """What the digest is of: pixels and labels, or, where images are decoded when they are looked at, names and sizes
    of files, and labels."""
    digest: str
    times: str = ""
    """Digest of the times at which files were last changed."""

    @property
    def images(self) -> int:
        """Their number."""
        return sum(self.counts)


@dataclass(frozen=True)
class Sample:
    """How many images of a split were taken, and how they were drawn."""

    count: int
    of: int
    """Images of the split."""
    how: Literal["all", "stratified", "first"]
    seed: int = 0
    """Of the draw; 0 where nothing is drawn."""

    def text(self, images: str = "test images") -> str:
        """The sample in words, such as "500 of 10,000 test images, drawn evenly from the classes (seed 0)"."""
        if self.how == "all":
            return f"all {self.of:,} {images}"
        if self.how == "first":
            return f"the first {self.count:,} of {self.of:,} {images}"
        return f"{self.count:,} of {self.of:,} {images}, drawn evenly from the classes (seed {self.seed})"


@dataclass(frozen=True)
class OneAnswer:
    """The class that a model answers for nearly everything, and the share of images for which it does, in [0, 1]."""

    name: str
    share: float

    def text(self, images: str) -> str:
        """The finding in words; `images` says which ones, such as "the test images"."""
        return f'the model answers "{self.name}" for {100 * self.share:.1f}% of {images}, whatever they show'


class UserError(ValueError):
    """A mistake of the user's, told in one line that says what to do; the command line prints it."""


@dataclass(frozen=True)
class Trust:
    """Which code the user allows to run, of that which a file asks for. A file cannot allow anything itself."""

    named: str | None = None
    """The module:function that the user has named, in this call or on this command line."""
    everything: bool = False
    """Whatever is asked for: --trust-code."""

    def check(self, source: str, asker: Path) -> None:
        """Raises UserError unless the user has allowed the code `source`, which `asker` asks for."""
        if not self.everything and self.named != source:
            raise UserError(
                f"{asker} asks for the code {source}, which would be imported from {Path.cwd()}; allow it with "
                f"--model.source {source} or --trust-code (in Python: source={source!r} or trust_code=True)"
            )


NO_TRUST = Trust()


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work, after what was done was saved."""

    def __init__(self, signal: int, saved: str = "") -> None:
        self.signal = signal
        self.saved = saved
        """How far it came and how it goes on, in one line."""


def as_batch(given: object) -> Batch:
    """A Batch from what a loader gives: a Batch, or (images, labels) with class indices or probabilities [B, classes].

    Checks types and shapes, which does not wait for a device. `check_values` checks the numbers.

    Raises:
        UserError: not images [B, C, H, W] in float32 or float64, not one label per image, no image, or two devices.
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
    """Checks the numbers of a batch, for which it waits for the batch's device.

    Raises:
        UserError: images that are not finite or leave [0, 1] by more than rounding (1e-6), a label below 0, or soft
            labels that are not probabilities.
    """
    low, high = (float(end) for end in torch.aminmax(batch.x))
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        if not low <= high or high == float("inf") or low == float("-inf"):
            raise UserError("the images hold NaN or infinity; look at what loads them")
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
"""What the size of a setting may be that is not 0: float32 holds the products of a few such numbers."""
MOST_WHOLE = 2**42
"""What a setting may be that is a whole number: a seed times 1,000,003 and what is added to it fit into 64 bits."""


def check_bounds(settings: object, prefix: str = "") -> None:
    """Raises UserError for a number among the fields of (nested) dataclasses that the arithmetic cannot hold."""
    for name, value in vars(settings).items():
        if is_dataclass(value):
            check_bounds(value, f"{prefix}{name}.")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float):
                fits = one == 0 or LEAST <= abs(one) <= MOST  # NaN is not
                require(fits, f"{prefix}{name} is {one}; its size must be 0 or lie in [{LEAST:g}, {MOST:g}]")
            elif isinstance(one, int):
                # Not told, because Python writes no integer of thousands of digits.
                require(abs(one) <= MOST_WHOLE, f"{prefix}{name} is too large; it must not exceed {MOST_WHOLE:,}")


def require(condition: bool, complaint: str) -> None:
    """Raises UserError with the complaint unless the condition holds (write it so that NaN fails)."""
    if not condition:
        raise UserError(complaint)


def known(word: str, choices: Iterable[str], what: str) -> str:
    """The word, if it is one of the choices; a UserError with a suggestion if not."""
    choices = list(choices)
    if word in choices:
        return word
    close = get_close_matches(word, choices, 1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
    raise UserError(f"unknown {what} {word!r}; {hint}")
