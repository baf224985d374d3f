"""Errors that a person reads, and the checks that raise them. Imports nothing heavy, so that an error comes at once."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake of the user: one line that says what is wrong and what to do. The command line prints it."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work after its progress was saved."""

    def __init__(self, signal: int, saved: str = "") -> None:
        self.signal = signal
        self.saved = saved
        """How far the work came and how to continue it, in one line."""


def require(condition: bool, complaint: str) -> None:
    """Raises UserError with the complaint unless the condition holds (write it so that NaN fails)."""
    if not condition:
        raise UserError(complaint)


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; without one the name of its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def brief(value: object) -> str:
    """A value in a few words on one line."""
    return " ".join(reprlib.repr(value).split())


class Doubt(UserWarning):
    """What may make a result wrong that is returned all the same."""


def few(title: str, names: Iterable[str]) -> str:
    """The title, the first three names, and how many more there are; empty if there are no names."""
    first, rest = (every := list(names))[:3], every[3:]
    shown = ", ".join(name if name.isprintable() else repr(name) for name in first)
    return f"{title} {shown}{f' and {len(rest)} more' if rest else ''}".lstrip() if first else ""


def known(word: str, choices: Iterable[str], what: str, see: str = "") -> str:
    """Returns the word if it is one of the choices.

    Raises:
        UserError: it is not. The line suggests a similar choice; without one it names `see`, a command that lists the
            choices, or the choices themselves.
    """
    choices = list(choices)
    if word in choices:
        return word
    close = get_close_matches(word, choices, 1)
    hint = f"did you mean {close[0]}?" if close else f"see: {see}" if see else f"known: {', '.join(choices)}"
    raise UserError(f"unknown {what} {word!r}; {hint}")
