"""The flags of every command as data, read from flags.json without importing the library.

So help and mistyped flags are answered at once. `python -m regmix.cli.generate` writes the file from the dataclasses
that the commands parse, and a test compares the two.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from regmix.errors import UserError, known
from regmix.shorthand import named

FILE = Path(__file__).with_name("flags.json")


@dataclass(frozen=True)
class Flag:
    """One flag and its help."""

    name: str
    """Without the dashes, such as method.alpha."""
    form: str
    """What follows the flag, such as INT or PATH; "" for a switch."""
    help: str
    default: str | None
    """Its text; None for a flag that must be given, or whose default depends on others."""
    short: str = ""
    """A one-letter alias."""

    @property
    def spellings(self) -> tuple[str, ...]:
        """All forms of the flag, with their dashes."""
        if self.form:
            return (f"--{self.name}",) if not self.short else (f"--{self.name}", f"-{self.short}")
        *group, last = self.name.split(".")
        return f"--{self.name}", "--" + ".".join([*group, f"no-{last}"])


@dataclass(frozen=True)
class Kind:
    """One choice for a part of an experiment, such as the method trades."""

    about: str
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Part:
    """A part of an experiment that comes in several kinds, such as the method."""

    help: str
    kinds: dict[str, Kind]


@dataclass(frozen=True)
class Settings:
    """The kinds that an experiment uses, and its values by flag where they differ from the flags' own defaults."""

    about: str
    kinds: dict[str, str]
    defaults: dict[str, str]


@dataclass(frozen=True)
class Table:
    """Everything that flags.json holds."""

    commands: dict[str, tuple[Flag, ...]]
    experiment: tuple[Flag, ...]
    """Flags of `regmix train` that set a field of the experiment and belong to no kind."""
    parts: dict[str, Part]
    recipes: dict[str, Settings]


@cache
def table() -> Table:
    """The flags of all commands."""
    tree = json.loads(FILE.read_text(encoding="utf-8"))

    def flags(rows: list[dict[str, str]]) -> tuple[Flag, ...]:
        return tuple(Flag(**row) for row in rows)

    def kinds(rows: dict[str, dict[str, list[dict[str, str]]]]) -> dict[str, Kind]:
        return {name: Kind(str(row["about"]), flags(row["flags"])) for name, row in rows.items()}

    return Table(
        {name: flags(rows) for name, rows in tree["commands"].items()},
        flags(tree["experiment"]),
        {name: Part(part["help"], kinds(part["kinds"])) for name, part in tree["parts"].items()},
        {name: Settings(**row) for name, row in tree["recipes"].items()},
    )


def command_flags(*commands: str) -> list[Flag]:
    """The flags that belong to these commands themselves."""
    return [flag for command in commands for flag in table().commands[command]]


def part_flags(kinds: Mapping[str, str]) -> list[Flag]:
    """The flags that choose these parts, such as --method, and the flags of the chosen kinds.

    A part without a kind ("") has the flags of all its kinds.
    """
    flags = []
    for name, chosen in kinds.items():
        part = table().parts[name]
        flags.append(Flag(name, "KIND", part.help, None))
        flags += [flag for kind in ([chosen] if chosen else part.kinds) for flag in part.kinds[kind].flags]
    return flags


def training_flags(kinds: Mapping[str, str] | None = None) -> list[Flag]:
    """All flags of `regmix train` for an experiment of these kinds; without them, for any experiment."""
    return [*command_flags("train"), *table().experiment, *part_flags(kinds or dict.fromkeys(table().parts, ""))]


def take(words: list[str], flag: str) -> str | None:
    """Removes `flag VALUE` (or flag=VALUE) from the words and returns VALUE; None if the flag is not there."""
    places = [place for place, word in enumerate(words) if word.partition("=")[0] == flag]
    if len(places) > 1:
        raise UserError(f"{flag} is given twice; give it once")
    for place in places:
        _, equals, value = words.pop(place).partition("=")
        if equals:
            return value
        if place == len(words) or words[place].startswith("-"):
            raise UserError(f"{flag} needs a value")
        return words.pop(place)
    return None


def take_kinds(words: list[str], parts: Iterable[str]) -> dict[str, str]:
    """Removes flags such as `--method trades` from the words and returns the kinds that they choose.

    `--data module:function` is short for `--data function --data.source module:function`; see `named`.

    Raises:
        UserError: a kind that does not exist.
    """
    chosen = {}
    for part in parts:
        if (kind := take(words, f"--{part}")) is not None:
            kind, settings = named(part, kind)
            for setting, value in settings.items():
                words += [f"--{part}.{setting}", value]
            chosen[part] = known(kind, table().parts[part].kinds, part)
    return chosen
