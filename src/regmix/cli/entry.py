"""The command line's entry point: picks the command and turns every mistake into one line and an exit code."""

import io
import os
import re
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

from regmix.cli import quick
from regmix.errors import Doubt, Interrupted, UserError
from regmix.runtime.signals import ending, handled, survive_hangup
from regmix.runtime.threads import share_the_cpu

AGAIN = "give the same command again"
GO_ON = dict.fromkeys(("compare", "sweep", "reproduce"), f"what is finished is kept; to go on, {AGAIN}") | {
    "train": f"continue a training whose directory is there with `regmix train --resume RUN`; if there is none, {AGAIN}"
}
"""How to go on after an interruption that has not said it itself, by command."""

OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "failed to map segment", "error -4 while",
)  # fmt: skip
"""Of torch, the C library, the dynamic linker and zlib."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0: done; 1: the machine failed (disk, memory, another process); 2: a mistake that the user can correct;
    129: the terminal was closed; 130: Ctrl-C; 143: SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the terminal cannot show are printed as their codes
            stream.reconfigure(errors="backslashreplace")
    code, answered = _exit_code(_answered, words)
    if answered or code:
        return code
    from regmix.runtime import processes

    return processes.closing(lambda: _exit_code(_work, words)[0])()


def _answered(words: list[str]) -> bool:
    """Answers at once if the library is not needed; otherwise imports it and returns False."""
    if quick.answer(words):
        return True
    share_the_cpu()
    from regmix.runtime import processes

    processes.forget_others()  # before libraries that read these variables are imported
    from regmix.cli import commands  # noqa: F401

    return False


def _work(words: list[str]) -> bool:
    from regmix.cli import commands

    with warnings.catch_warnings():
        warnings.simplefilter("always", Doubt)
        warnings.showwarning = partial(_in_one_line, warnings.showwarning)
        getattr(commands, words[0])(words[1:])
    return True


def _in_one_line(usual: Callable[..., None], message: Warning | str, *words: Any, **more: Any) -> None:
    """Shows a warning of this package without the line of code that it comes from; any other as usual."""
    if isinstance(message, Doubt):
        print(f"regmix: warning: {message}", file=sys.stderr)
    else:
        usual(message, *words, **more)


def _exit_code(action: Callable[[list[str]], bool], words: list[str]) -> tuple[int, bool]:
    """The exit code of an action, and what it returns. Errors are printed as one line."""
    try:
        with handled(_terminate, *ending()):  # unwinds the work as Ctrl-C does
            return 0, action(words)
    except UserError as error:
        print(f"regmix: error: {error}", file=sys.stderr)
        return 2, False
    except BrokenPipeError:
        # The reader is gone (`regmix recipes | head -1`): nothing is wrong, and Python must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0, True
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"regmix: error: {place}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt as interrupted:
        number = interrupted.signal if isinstance(interrupted, Interrupted) else signal.SIGINT
        saved = interrupted.saved if isinstance(interrupted, Interrupted) else ""
        print(f"regmix: {signal.Signals(number).name}: {saved or GO_ON.get(words[0], AGAIN)}", file=sys.stderr)
        return 128 + number, False
    except (RuntimeError, MemoryError, ImportError, zlib.error) as error:
        if (why := _reason(error, words[0])) is None:
            raise
        print(f"regmix: error: {why}", file=sys.stderr)
    return 1, False


def _reason(error: Exception, command: str) -> str | None:
    """One line about an error of torch or numpy that is not a fault of this program; None for all others."""
    text = str(error)
    lowered = text.lower()
    if isinstance(error, MemoryError) or any(words in lowered for words in OUT_OF_MEMORY):
        size = re.search(r"allocate ([\d.]+ ?[KMGTPE]?i?B)", text.replace(" bytes", " B"))
        part = ", or --accumulate 4" if command == "train" else ""
        return f"out of memory{f': could not allocate {size[1]}' if size else ''}; use a smaller --batch-size{part}"
    from regmix.runtime import processes

    lost = ("gloo", "nccl", "connection closed", "connection reset")
    if processes.started()[1] > 1 and any(word in lowered for word in lost):
        return f"another process of this job has ended; {GO_ON.get(command, AGAIN)}"
    return None


def _terminate(number: int, frame: FrameType | None) -> None:
    survive_hangup(number)
    raise Interrupted(number)
