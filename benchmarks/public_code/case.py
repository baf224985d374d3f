"""A comparison: which method, which public code, how it is run, and what is known to differ."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from public_code.world import World

from regmix.methods import Method


@dataclass(frozen=True)
class Case:
    """A comparison of a method with public code."""

    method: Method
    repository: str
    run: Callable[[World, Path], None]
    """Runs the public training loop in the world."""
    part: str = ""
    """The file or the setting of the repository."""
    mass: float = 1.0
    """Probability of the true class in the labels."""
    epochs: int = 1
    per_epoch: int = 3
    clock_epochs: int = 0
    """Epochs of the whole training, where the public code is stopped earlier; 0: `epochs`."""
    arguments: tuple[str, ...] = ()
    inside: bool = False
    """Images whose pixels keep away from 0 and 1, for code that clips to the image's range elsewhere."""
    mirrored: bool = False
    """The public code draws 1 - u where this package draws u."""
    unused: int = 0
    """Draws of noise for a batch that the public code makes at its beginning and does not use."""
    unused_each: int = 0
    """The same in every step."""
    sharp: float = 1.0
    """Factor in the network that makes it so curved that some steps of an attack lower the loss."""
    frozen: bool = False
    """BatchNorm's running statistics stay, for code that makes passes in train mode that this package saves."""
    replays: int = 1
    """Steps in a row with the same batch."""
    pairs: bool = False
    """The public model returns (logits, features)."""
    repeat: bool = False
    """Every epoch has the same images."""
    differs: bool = False
    remark: str = ""
    """What is known to differ, and why."""
