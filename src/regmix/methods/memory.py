"""The memory of a method: what it stores from step to step, by name."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regmix.methods.per_image import NumberPerImage, PerImage
from regmix.methods.storage import Part, PerClass
from regmix.threats import Linf, Threat
from regmix.types import Batch, UserError, require


@dataclass(frozen=True)
class Setup:
    """What a memory is made for."""

    images: int
    """Number of training images."""
    classes: int
    """Number of classes."""
    shape: tuple[int, int, int]
    """Shape of an image [C, H, W]."""
    threat: Threat
    pad: int = 0
    """Width of the border that images are cropped out of, in pixels."""
    device: torch.device | str = "cpu"


def perturbations(setup: Setup) -> PerImage:
    """A memory of each image's perturbation: int8 under L-inf, else bfloat16.

    The elements of a perturbation in an L2 ball are small compared to its radius, and int8 would lose them.
    """
    dtype = torch.int8 if isinstance(setup.threat, Linf) else torch.bfloat16
    return PerImage(setup.images, setup.shape, setup.pad, setup.device, dtype=dtype, limit=setup.threat.eps)


def momenta(setup: Setup) -> PerImage:
    """A memory of each image's gradients in units of the batch's mean absolute element: float8 under L-inf, else
    bfloat16.

    Under L-inf only the sign of the sum with the next gradient counts, and images that the network is sure of have
    gradients that are orders of magnitude smaller than the others: the range matters, the last digits do not.
    """
    dtype = torch.float8_e5m2 if isinstance(setup.threat, Linf) else torch.bfloat16
    return PerImage(setup.images, setup.shape, setup.pad, setup.device, dtype=dtype)


class _ReadOnly:
    def __init__(self, part: Part) -> None:
        self.read, self.gather = part.read, part.gather

    def write(self, batch: Batch, seen: Tensor) -> None:
        pass


class Memory:
    """The named parts of what a method remembers, such as memory["delta"]."""

    def __init__(self, **parts: Part) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def read_only(self) -> "Memory":
        """The same memory, which ignores what is written to it."""
        return Memory(**{name: _ReadOnly(part) for name, part in self.parts.items()})  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Tensor]:
        """The values of all parts, of all processes."""
        return {name: part.gather() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores the values of `state_dict`; the number of processes may have changed."""
        for name, part in self.parts.items():
            part.load(state[name])


def check_positions(batch: Batch, memory: Memory) -> Batch:
    """The batch with its index as int64. Checks numbers only where they are on the CPU.

    Raises:
        UserError: no index for a memory of images, an index that is not a position per image in the memory, or labels
            that are none of the classes of a memory of classes.
    """
    counts = [part.count for part in memory.parts.values() if isinstance(part, PerImage | NumberPerImage)]
    classes = [len(part.values) for part in memory.parts.values() if isinstance(part, PerClass)]
    if classes and batch.y.device.type == "cpu":
        high, count = int(batch.y.max()), min(classes)
        require(high < count, f"labels reach {high}, but the memory is for {count} classes; make one with more classes")
    index = batch.index
    if not counts or index is None:
        hint = "the method remembers every image: give Batch(x, y, index) their positions among the training images"
        require(not counts, hint)
        return batch
    whole = not (index.is_floating_point() or index.dtype == torch.bool)
    if not whole or index.shape != batch.x.shape[:1] or index.device != batch.x.device:
        raise UserError(f"index is {index.dtype} {list(index.shape)}; give one position (int64) per image, beside x")
    if index.device.type == "cpu":
        count, low, high = min(counts), int(index.min()), int(index.max())
        require(low >= 0 and high < count, f"index reaches from {low} to {high}, but the memory is for {count} images")
    return batch._replace(index=index.long())
