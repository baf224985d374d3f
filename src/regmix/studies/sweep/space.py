"""The search space of a sweep: flags of `regmix train` and their values."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args, get_type_hints

from regmix.types import UserError

Point = dict[str, str]
"""A value for every flag of a space, as text of the command line."""


NO_SETTINGS = {
    "seed": "give the number of seeds with --seeds",
    "device": "it is the same for all points; give --device",
    "out": "all points are in the folder of --out",
    "json": "it is the same for all points; give --json",
    "from": "name the recipe, and search its settings",
    "resume": "start the same sweep again to continue it",
}
"""Flags of `regmix train` that a sweep sets itself, and what the user should do instead."""


@dataclass(frozen=True)
class Axis:
    """One flag of `regmix train` without its dashes, and its possible values: `values`, or the range low..high."""

    flag: str
    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    """Search the range on a logarithmic scale."""
    whole: bool = False
    """The setting is an integer."""

    @property
    def is_range(self) -> bool:
        """Whether the axis is a range of numbers."""
        return not self.values

    def ends(self) -> tuple[str, ...]:
        """The values, or the two ends of a range."""
        return self.values or (self.text(self.low), self.text(self.high))

    def text(self, value: float) -> str:
        """A number of the range as text of the command line."""
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"

    def has(self, text: str) -> bool:
        """Whether a text is one of the values, or a number in the range (up to the rounding of `text`)."""
        if not self.is_range:
            return text in self.values
        try:
            value = float(text)
        except ValueError:
            return False
        return self.low - 1e-3 * abs(self.low) <= value <= self.high + 1e-3 * abs(self.high)


def parse_space(text: str) -> list[Axis]:
    """Parses a search space such as `method.alpha=25,50,100 lr=0.05..0.2 weight-decay=log:1e-5..1e-3`.

    Raises:
        UserError: an axis cannot be read, occurs twice, or is not a setting to search.
    """
    axes = [_axis(word) for word in text.split()]
    if not axes:
        raise UserError("--space is empty; write FLAG=VALUE,VALUE such as method.alpha=25,50,100")
    flags = [axis.flag for axis in axes]
    if twice := [flag for flag in flags if flags.count(flag) > 1]:
        raise UserError(f"--space: {twice[0]} is given twice; give all its values at once")
    for axis in axes:
        if (name := axis.flag.replace("_", "-")) in NO_SETTINGS:
            raise UserError(f"--space: {axis.flag} cannot be searched; {NO_SETTINGS[name]}")
    return axes


def _axis(word: str) -> Axis:
    flag, equals, value = word.partition("=")
    if not (flag and equals and value):
        raise UserError(f"--space: {word!r} cannot be read; write FLAG=VALUE,VALUE or FLAG=LOW..HIGH")
    flag = flag.lstrip("-")
    if ".." not in value:
        values = tuple(value.split(","))
        if len(set(values)) < len(values) or "" in values:
            raise UserError(f"--space: {word!r} has an empty or a repeated value; remove it")
        return Axis(flag, values)
    low, high = value.removeprefix("log:").split("..", 1)
    try:
        axis = Axis(flag, (), float(low), float(high), value.startswith("log:"))
    except ValueError:
        raise UserError(f"--space: {word!r} is not a range; write FLAG=LOW..HIGH or FLAG=log:LOW..HIGH") from None
    if not axis.low < axis.high or (axis.log and axis.low <= 0) or math.isinf(axis.high):
        raise UserError(f"--space: {word!r}: LOW must be less than HIGH, and positive for a log range")
    return axis


def typed(axes: Sequence[Axis], settings: Sequence[object]) -> list[Axis]:
    """The axes with `whole` set for settings that are integers in one of `settings`, which are nested dataclasses."""
    return [replace(axis, whole=any(_is_whole(nested, axis.flag) for nested in settings)) for axis in axes]


def _is_whole(settings: object, flag: str) -> bool:
    """Whether the setting of a flag such as method.steps is an integer."""
    *parts, name = flag.replace("-", "_").split(".")
    for part in parts:
        settings = getattr(settings, part, None)
    hint = get_type_hints(type(settings)).get(name)
    return int in (hint, *get_args(hint)) and float not in (hint, *get_args(hint))


def grid(axes: Sequence[Axis]) -> list[Point]:
    """All combinations of the values of the axes.

    Raises:
        UserError: an axis is a range.
    """
    for axis in axes:
        if axis.is_range:
            raise UserError(f"--space: {axis.flag} is a range; give single values, or --engine optuna or ray")
    combinations = itertools.product(*(axis.values for axis in axes))
    return [dict(zip((axis.flag for axis in axes), values, strict=True)) for values in combinations]
