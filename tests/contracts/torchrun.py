"""Runs a command in two processes, for tests of what processes share."""

import os
import subprocess
import sys


def in_two_processes(words: str) -> None:
    """Runs `regmix WORDS` in two processes that torchrun starts."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "regmix",
         *words.split()],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
