"""A console that outlives its reader: a training is not lost because nobody reads its output any more."""

import os
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console


class LastingConsole(Console):
    """A console of rich. When its output cannot be written any more, the work goes on without it.

    So it is with `regmix train ... | head -2`, and with a file on a disk that is full. One line on standard error says
    it.
    """

    def print(self, *words: Any, **more: Any) -> None:
        """Prints, or says once that this is not possible any more."""
        try:
            super().print(*words, **more)
        except OSError as error:
            self._fall_silent(error.strerror or str(error))

    def on_broken_pipe(self) -> None:
        """Called where rich meets a closed pipe; its own answer is to end the process."""
        self._fall_silent("nobody reads it any more")

    def _fall_silent(self, why: str) -> None:
        self.quiet = True
        name = "standard error" if self.stderr else "standard output"
        with suppress(OSError, ValueError):  # no file of the system, as in a notebook
            _drop(self.file.fileno())
        try:
            print(f"regmix: {name} was lost ({why}); the work goes on without it", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                _drop(sys.stderr.fileno())


def _drop(descriptor: int) -> None:
    """Sends to nowhere what will be written to this file, also what Python flushes when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
