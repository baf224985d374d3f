"""Reads the values of flags with tyro, and turns its complaints into one line."""

import contextlib
import io
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from regmix.types import UserError

T = TypeVar("T")

_LOCK = threading.Lock()
"""The workers of a sweep are threads, and neither tyro nor a redirected stream is thread-safe."""


def parse(kind: type[T], words: Sequence[str], command: str, default: T | None = None) -> T:
    """A `kind` (a dataclass whose fields are the flags) from the words of a command line.

    Raises:
        UserError: what tyro says of a wrong flag or value, in one line, with its suggestion.
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
        raise UserError(f"{_one_line(complaint.getvalue())} (see: regmix {command} --help)") from None
    assert isinstance(value, kind)
    return value, rest


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
