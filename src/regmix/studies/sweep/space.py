"""The settings that a sweep tries."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args, get_type_hints

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
    whole: bool = False
    """Only whole numbers will do, since the setting is one."""

    @property
    def is_range(self) -> bool:
        """Whether any number between two ends will do."""
        return not self.values

    def ends(self) -> tuple[str, ...]:
        """The values; of a range its ends."""
        return self.values or (self.text(self.low), self.text(self.high))

    def text(self, value: float) -> str:
        """A number of a range as one would type it."""
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"

    def has(self, text: str) -> bool:
        """Whether a text is one of the values, or a number of the range (but for the digits that `text` drops)."""
        if not self.is_range:
            return text in self.values
        try:
            value = float(text)
        except ValueError:
            return False
        return self.low - 1e-3 * abs(self.low) <= value <= self.high + 1e-3 * abs(self.high)


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


def typed(axes: Sequence[Axis], settings: Sequence[object]) -> list[Axis]:
    """The axes, knowing which of them are whole numbers in one of the settings, which are nested dataclasses."""
    return [replace(axis, whole=any(_is_whole(one, axis.flag) for one in settings)) for axis in axes]


def _is_whole(settings: object, flag: str) -> bool:
    """Whether the setting that a flag such as method.steps names is an integer."""
    *parts, name = flag.replace("-", "_").split(".")
    for part in parts:
        settings = getattr(settings, part, None)
    hint = get_type_hints(type(settings)).get(name)
    return int in (hint, *get_args(hint)) and float not in (hint, *get_args(hint))


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
