"""A training that kills itself (SIGKILL) at a moment drawn from a seed: while it computes, or while it writes.

python killed.py SEED SECONDS WORD ...        SECONDS: how long an undisturbed training takes
"""

import os
import random
import signal
import sys
import threading
from pathlib import Path

from regmix.cli.entry import main


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(owner: object, name: str, number: int) -> None:
    """Lets the process die before or after a call of this function."""
    real, calls = getattr(owner, name), 0

    def counted(*words: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number and number % 2:
            die()
        result = real(*words, **more)
        if calls == number:
            die()
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    seed, seconds, *words = sys.argv[1:]
    draw = random.Random(int(seed))
    if int(seed) % 2:
        threading.Timer(draw.uniform(0, float(seconds)), die).start()
    else:
        owner, name, calls = draw.choice([(os, "fsync", 12), (Path, "replace", 12), (Path, "unlink", 4)])
        die_at_call(owner, name, draw.randint(1, calls))
    sys.exit(main(words))
