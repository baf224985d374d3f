"""The settings that a sweep tries."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from regmix.types import UserError

Point = dict[str, str]
"""A value for every flag of a space, as one would type it."""


NO_SETTINGS = {
    "seed": "say how many with --seeds",
    "device": "it is the same for all points; give --device",
    "out": "all points lie in the folder of --out",
    "json": "it is the same for all points; give --json",
    "from": "name the recipe, and search its settings",
    "resume": "start the same sweep again to go on with it",
}
"""Flags of `regmix train` that a sweep gives itself, and what to do instead."""


@dataclass(frozen=True)
class Axis:
    """One flag of `regmix train`, without its dashes, and what it may be: one of `values`, or a number in a range."""

    flag: str
    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    """The range is even in the logarithm."""

    @property
    def is_range(self) -> bool:
        """Whether any number between two ends will do."""
        return not self.values


def parse_space(text: str) -> list[Axis]:
    """The axes of a text such as `method.alpha=25,50,100 lr=0.05..0.2 weight-decay=log:1e-5..1e-3`.

    Raises:
        UserError: an axis that cannot be read, or that comes twice.
    """
    axes = [_axis(word) for word in text.split()]
    if not axes:
        raise UserError("--space is empty; write FLAG=VALUE,VALUE such as method.alpha=25,50,100")
    flags = [axis.flag for axis in axes]
    if twice := [flag for flag in flags if flags.count(flag) > 1]:
        raise UserError(f"--space: {twice[0]} comes twice")
    for axis in axes:
        if (name := axis.flag.replace("_", "-")) in NO_SETTINGS:
            raise UserError(f"--space: {axis.flag} is no setting to search; {NO_SETTINGS[name]}")
    return axes


def _axis(word: str) -> Axis:
    flag, equals, value = word.partition("=")
    if not (flag and equals and value):
        raise UserError(f"--space: {word!r} is no axis; write FLAG=VALUE,VALUE or FLAG=LOW..HIGH")
    flag = flag.lstrip("-")
    if ".." not in value:
        values = tuple(value.split(","))
        if len(set(values)) < len(values) or "" in values:
            raise UserError(f"--space: {word!r} has a value twice, or an empty one")
        return Axis(flag, values)
    low, high = value.removeprefix("log:").split("..", 1)
    try:
        axis = Axis(flag, (), float(low), float(high), value.startswith("log:"))
    except ValueError:
        raise UserError(f"--space: {word!r} is no range; write FLAG=LOW..HIGH or FLAG=log:LOW..HIGH") from None
    if not axis.low < axis.high or (axis.log and axis.low <= 0) or math.isinf(axis.high):
        raise UserError(f"--space: {word!r}: LOW must be less than HIGH, and positive for a log range")
    return axis


def grid(axes: Sequence[Axis]) -> list[Point]:
    """Every combination of the axes' values.

    Raises:
        UserError: one of them is a range.
    """
    for axis in axes:
        if axis.is_range:
            raise UserError(f"--space: {axis.flag} is a range, which only --engine optuna and ray can search")
    combinations = itertools.product(*(axis.values for axis in axes))
    return [dict(zip((axis.flag for axis in axes), values, strict=True)) for values in combinations]
