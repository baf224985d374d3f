"""Checks that all numbered files of a data set are there, and no others."""

import re
from collections.abc import Sequence
from pathlib import PurePath

from regmix.types import UserError

NUMBERED = re.compile(r"(.*-)(\d+)-of-(\d+)((?:-[0-9a-f]+)?\.parquet)")
"""train-00000-of-00004.parquet and so on. A hash may follow, different in every file."""


def check_complete(files: Sequence[str]) -> None:
    """Raises UserError naming a numbered file that is missing, or two files that cannot belong to the same set."""
    known: dict[str, str] = {}
    sets: dict[str, dict[int, re.Match[str]]] = {}
    for file in files:
        name = PurePath(file).name
        if known.setdefault(name, file) != file:
            raise UserError(f"{known[name]} and {file} have the same name, as copies do; {REMEDY}")
        if match := NUMBERED.fullmatch(name):
            before, number, count, _ = match.groups()
            same_set = sets.setdefault(before, {})
            first = next(iter(same_set.values()), match)
            if int(first[3]) != int(count):
                raise UserError(f"{first[0]} and {name} belong to two sets, of {first[3]} and {count} files; {REMEDY}")
            if int(number) >= int(count) or same_set.setdefault(int(number), match) is not match:
                raise UserError(f"{name} is one file too many beside {same_set.get(int(number), first)[0]}; {REMEDY}")
    for before, same_set in sets.items():
        first = next(iter(same_set.values()))
        for name in known:
            if name.startswith(before) and not NUMBERED.fullmatch(name):
                raise UserError(f"{name} does not belong to the numbered files such as {first[0]}; {REMEDY}")
        for number in range(int(first[3])):
            if number not in same_set:
                after = ".parquet" if first[4] == ".parquet" else "-*.parquet"
                lost = PurePath(known[first[0]]).parent / f"{before}{number:0{len(first[2])}}-of-{first[3]}{after}"
                raise UserError(f"{lost} is missing; {first[0]} is one of {int(first[3])} files; fetch it again")


REMEDY = "remove the files that do not belong to the data"
