"""Whether all files of a data set are there that its file names speak of, and no others."""

import re
from collections.abc import Sequence
from pathlib import PurePath

from regmix.types import UserError

NUMBERED = re.compile(r"(.*-)(\d+)-of-(\d+)((?:-[0-9a-f]+)?\.parquet)")
"""train-00000-of-00004.parquet and so on; some are followed by a hash, each by another."""


def check_complete(files: Sequence[str]) -> None:
    """Raises UserError naming a numbered file that is missing, or two files that cannot both be of one set."""
    known: dict[str, str] = {}
    sets: dict[str, dict[int, re.Match[str]]] = {}
    for file in files:
        name = PurePath(file).name
        if known.setdefault(name, file) != file:
            raise UserError(f"{known[name]} and {file} have the same name, as copies have; {REMEDY}")
        if found := NUMBERED.fullmatch(name):
            before, number, count, _ = found.groups()
            same_set = sets.setdefault(before, {})
            first = next(iter(same_set.values()), found)
            if int(first[3]) != int(count):
                raise UserError(f"{first[0]} and {name} are of two sets, of {first[3]} and of {count} files; {REMEDY}")
            if int(number) >= int(count) or same_set.setdefault(int(number), found) is not found:
                raise UserError(f"{name} is one file too many beside {same_set.get(int(number), first)[0]}; {REMEDY}")
    for before, same_set in sets.items():
        first = next(iter(same_set.values()))
        for name in known:
            if name.startswith(before) and not NUMBERED.fullmatch(name):
                raise UserError(f"{name} is beside the numbered {first[0]} but not one of them; {REMEDY}")
        for number in range(int(first[3])):
            if number not in same_set:
                after = ".parquet" if first[4] == ".parquet" else "-*.parquet"
                lost = PurePath(known[first[0]]).parent / f"{before}{number:0{len(first[2])}}-of-{first[3]}{after}"
                raise UserError(f"{lost} is missing; {first[0]} is one of {int(first[3])} files; fetch it again")


REMEDY = "move away what does not belong to the data"
