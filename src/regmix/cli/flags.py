"""Reads flags with tyro, and turns what it complains about into one line."""

import contextlib
import io
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from regmix.types import UserError

T = TypeVar("T")

_one_at_a_time = threading.Lock()
"""A sweep's workers are threads; neither tyro nor a redirected stream is made for that."""


def parse(kind: type[T], words: Sequence[str], prog: str, about: str, default: T | None = None) -> T:
    """A `kind` (a dataclass whose fields are the flags) from the words of a command line.

    Raises:
        UserError: what tyro says of a wrong flag or value, in one line, with its suggestion.
        SystemExit: after --help has been printed.
    """
    value, rest = parse_some(kind, words, prog, about, default, others=False)
    assert not rest
    return value


def parse_some(
    kind: type[T], words: Sequence[str], prog: str, about: str, default: T | None = None, *, others: bool = True
) -> tuple[T, list[str]]:
    """As `parse`; with `others`, words that are no flags of `kind` are returned in their order.

    Raises:
        UserError: what tyro says of a wrong flag or value, in one line, with its suggestion.
        SystemExit: after --help has been printed.
    """
    complaint = io.StringIO()
    try:
        with _one_at_a_time, contextlib.redirect_stderr(complaint):
            settings: dict[str, Any] = {
                "args": words,
                "prog": f"regmix {prog}",
                "description": about,
                "default": default,
                "config": (tyro.conf.AvoidSubcommands,),
            }
            found = tyro.cli(kind, return_unknown_args=True, **settings) if others else (tyro.cli(kind, **settings), [])
            value, rest = found
            assert isinstance(value, kind)
            return value, rest
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(complaint.getvalue())} (see: regmix {prog.split()[0]} --help)") from None


def _one_line(box: str) -> str:
    """The message in tyro's framed complaint, and its first suggestion."""
    lines = [line.strip("│ ").strip() for line in box.splitlines()]
    message = []
    for line in lines[1:]:
        if not line or line[0] in "─╰":
            break
        message.append(line)
    text = " ".join(message).rstrip(".:")
    if "Perhaps you meant:" in lines:
        suggested = lines[lines.index("Perhaps you meant:") + 1].split()[0]
        text += f"; did you mean {suggested}?"
    return text


def take(words: list[str], flag: str) -> str | None:
    """Removes `flag VALUE` (or flag=VALUE) from the words and returns VALUE; None if the flag is not there."""
    for place, word in enumerate(words):
        if word == flag:
            if place + 1 == len(words) or words[place + 1].startswith("-"):
                raise UserError(f"{flag} needs a value")
            value = words[place + 1]
            del words[place : place + 2]
            return value
        if word.startswith(flag + "="):
            del words[place]
            return word.removeprefix(flag + "=")
    return None
