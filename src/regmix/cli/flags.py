"""Reads the values of flags with tyro, and turns its complaints into one line."""

import contextlib
import io
import re
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from regmix.types import UserError

T = TypeVar("T")

_PLAIN = (
    (r"Error parsing experiment\.\S+: (.*)", r"\1"),  # a setting's own message
    (r"Error parsing (\S+): invalid literal for int\(\) .*: ('.*')", r"\1: \2 is not a whole number"),
    (r"Error parsing (\S+): could not convert string to float: ('.*')", r"\1: \2 is not a number"),
    (r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]", r"\1: cannot read \2"),
    (r"Error parsing (\S+): (.*)", r"\1: \2"),
    (r"Missing value for argument '(\S+)'.*", r"\1 needs a value"),
    (r"invalid choice ('.*') for argument '(\S+)'\. Expected one of \((.*)\)", r"\2: \1 is unknown; choose one of \3"),
    (r"Missing from .*?: (\S+) .*", r"\1 is missing"),
    (r"Unrecognized options: ([^\s,]+).*", r"unexpected argument '\1'"),
)
"""Complaints of tyro, and how they read here. What matches none is shown as it is."""

_LOCK = threading.Lock()
"""The workers of a sweep are threads, and neither tyro nor a redirected stream is thread-safe."""


def parse(kind: type[T], words: Sequence[str], command: str, default: T | None = None) -> T:
    """A `kind` (a dataclass whose fields are the flags) from the words of a command line.

    Raises:
        UserError: a wrong or missing value.
    """
    return _parsed(kind, words, command, default, others=False)[0]


def parse_some(kind: type[T], words: Sequence[str], command: str) -> tuple[T, list[str]]:
    """As `parse`; words that are no flags of `kind` are returned in their order."""
    return _parsed(kind, words, command, None, others=True)


def _parsed(
    kind: type[T], words: Sequence[str], command: str, default: T | None, *, others: bool
) -> tuple[T, list[str]]:
    complaint = io.StringIO()
    settings: dict[str, Any] = {"args": words, "default": default, "config": (tyro.conf.AvoidSubcommands,)}
    try:
        with _LOCK, contextlib.redirect_stderr(complaint):
            if others:
                value, rest = tyro.cli(kind, return_unknown_args=True, **settings)
            else:
                value, rest = tyro.cli(kind, **settings), []
    except SystemExit:
        raise UserError(_plain(_one_line(complaint.getvalue()), command)) from None
    assert isinstance(value, kind)
    return value, rest


def _plain(complaint: str, command: str) -> str:
    """The complaint in the words of this command line, with the help to read where it is about a flag."""
    if (found := re.search(r"Expected one of \((.*)\)", complaint)) and "'None'" in found[
        1
    ]:  # tyro's own, in any order
        choices = sorted({*found[1].split(", ")} - {"'None'"})
        complaint = complaint.replace(found[1], ", ".join(choices))
    for number, (pattern, words) in enumerate(_PLAIN):
        if re.fullmatch(pattern, complaint):
            text = re.sub(pattern, words, complaint)
            return text if number == 0 else f"{text} (see: regmix {command} --help)"
    return f"{complaint} (see: regmix {command} --help)"


def _one_line(box: str) -> str:
    """The message in tyro's complaint, which has a title above and rules or a frame around it."""
    lines = [line.strip("│ ").strip() for line in box.splitlines()]
    rule = [not line.strip("─-╰╯") for line in lines]  # or an empty line
    first = next(number for number in range(1, len(lines)) if not rule[number])  # the title is line 0
    last = next((number for number in range(first, len(lines)) if rule[number]), len(lines))
    return " ".join(lines[first:last]).rstrip(".:")
