"""The command line's front door: picks the command and turns every mistake into one line and an exit code."""

import difflib
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from regmix.runtime import processes
from regmix.runtime.signals import ending, handled, survive_hangup
from regmix.types import Interrupted, UserError

OVERVIEW = """usage: regmix COMMAND ...

Fast adversarial training with RegMix and its family, and an honest measurement of the robustness it buys.

commands:
  recipes                       list the recipes
  train RECIPE [flags]          train a model into a run directory
  evaluate RUN [flags]          attack a run's checkpoints, or a model from elsewhere, on the test split
  compare RECIPE --methods ...  train methods with several seeds and compare them
  sweep RECIPE --space ...      search settings by the validation images, and compare the best
  bench step RECIPE [flags]     time training steps beside the passes through the network that they need
  report RUN [RUN ...] -o FILE  write one self-contained HTML page about runs

`regmix COMMAND --help` explains the flags and their units."""

INTERRUPTED = "`regmix train --resume RUN` continues a training, the same command an evaluation or a comparison"

COMMANDS = ("recipes", "train", "evaluate", "compare", "sweep", "report", "bench")


@processes.closing
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 (the machine would not), 2 (the user can mend it), 129 (a closed
    terminal), 130 (Ctrl-C), 143 (SIGTERM)."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal has no letters for is shown as its code
            stream.reconfigure(errors="backslashreplace")
    try:
        with handled(_terminate, *ending()):  # unwinds the work as Ctrl-C does
            _dispatch(words)
    except UserError as error:
        print(f"regmix: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has gone (`regmix recipes | head -1`): nothing is wrong, and Python must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"regmix: error: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupted:
        number = interrupted.signal if isinstance(interrupted, Interrupted) else signal.SIGINT
        saved = interrupted.saved if isinstance(interrupted, Interrupted) else ""
        print(f"regmix: {signal.Signals(number).name}: {saved or INTERRUPTED}", file=sys.stderr)
        return 128 + number
    except (RuntimeError, MemoryError) as error:
        if _is_lack_of_memory(error):
            why = f"out of memory{_not_to_be_had(error)}; a smaller --batch-size needs less"
        elif _is_of_lost_process(error):
            why = f"another process of this work has ended; {INTERRUPTED}"
        else:
            raise
        print(f"regmix: error: {why}", file=sys.stderr)
        return 1
    return 0


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether this is what torch or numpy says when an allocation fails on a GPU or in the machine's memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _not_to_be_had(error: Exception) -> str:
    """How much could not be allocated, as a clause, if the error says it."""
    found = re.search(r"allocate ([\d.]+ ?[KMGTPE]?i?B)", str(error).replace(" bytes", " B"))
    return f": {found[1]} were not to be had" if found else ""


def _is_of_lost_process(error: Exception) -> bool:
    """Whether this is what torch.distributed says when one of several processes no longer answers."""
    words = ("gloo", "nccl", "connection closed", "connection reset")
    return processes.started()[1] > 1 and any(word in str(error).lower() for word in words)


def _terminate(number: int, frame: FrameType | None) -> None:
    survive_hangup(number)
    raise Interrupted(number)


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    name, *rest = words
    if name == "--version":
        from regmix import __version__

        print(f"regmix {__version__}")
        return
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        raise UserError(f"unknown command {name!r}; {f'did you mean {close[0]}?' if close else 'see: regmix --help'}")
    processes.forget_others()
    # Only now, because it takes all of the library with it, and the lines above should not wait for that.
    from regmix.cli import commands

    getattr(commands, name)(rest)
