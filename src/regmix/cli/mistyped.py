"""Flags that do not exist, and which one is meant."""

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

from regmix.cli.help_texts import FOREIGN_KINDS
from regmix.cli.table import Flag, table
from regmix.errors import UserError, few

IN_ATTACKS = dict.fromkeys(
    ("steps", "restarts", "iterations", "n-iter", "n-restarts", "step-size", "alpha"),
    "write steps and restarts in --attacks: pgd-50 has 50 steps of eps/4, pgd-50x5 also 5 restarts",
) | {"queries": "write the number of queries in --attacks: square-500"}
"""What is no flag of commands that evaluate."""
TITLES = {"train": "train RECIPE", "resume": "train --resume RUN", "foreign": "evaluate for a model from elsewhere"}


def check(words: Iterable[str], flags: Collection[Flag], command: str) -> None:
    """Raises UserError for a word that looks like a flag and is none of these; the line says which one may be meant."""
    spellings = {spelling for flag in flags for spelling in flag.spellings}
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in spellings:
            hint = _hint(name[2:], {spelling[2:] for spelling in spellings if spelling.startswith("--")}, command)
            raise UserError(f"unknown flag {name!r}; {hint}")


def _hint(name: str, known: Collection[str], command: str) -> str:
    part, _, last = name.rpartition(".")
    lasts = {flag: flag.rpartition(".")[2] for flag in sorted(known)}
    if same := [flag for flag, its in lasts.items() if its == last and not (part in known and _kinds_with(part, last))]:
        return _meant(same)
    for chosen in [part] if part else sorted({*table().parts} & {*known}):
        if chosen in known and (kinds := _kinds_with(chosen, last)):
            return f"--{chosen}.{last} is {few(f'for --{chosen}', kinds)}; choose that, or leave --{name} out"
    if last in IN_ATTACKS and "attacks" in known:
        return IN_ATTACKS[last]
    if others := [*_others(name)]:
        return f"it is a flag of {few('', others)}, not of {command}"
    begun = [flag for flag, its in lasts.items() if min(len(its), len(last)) > 1 and _begins(its, last)]
    close = get_close_matches(name, lasts, 1) or get_close_matches(last, lasts, 1)
    if found := begun or close or [flag for flag in lasts if last in flag.split("-")]:
        return _meant(found)
    return f"see: regmix {command} --help-all"


def _begins(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _meant(flags: Iterable[str]) -> str:
    return f"did you mean {' or '.join([f'--{flag}' for flag in flags][:3])}?"


def _kinds_with(part: str, setting: str) -> list[str]:
    """The kinds of a part of the experiment that have this setting."""
    kinds = table().parts[part].kinds if part in table().parts else {}
    return [name for name, kind in kinds.items() if any(flag.name == f"{part}.{setting}" for flag in kind.flags)]


def _others(name: str) -> Iterator[str]:
    """The commands that have a flag of this name."""
    for command, flags in table().commands.items():
        if any(flag.name == name for flag in (*flags, *(table().experiment if command == "train" else ()))):
            yield TITLES.get(command, command)
    part, _, setting = name.partition(".")
    if part in table().parts and (not setting or _kinds_with(part, setting)):
        yield TITLES["train"]
        if part in FOREIGN_KINDS:
            yield TITLES["foreign"]
