"""Two processes that are interrupted, or fail, end at once, whatever still knows of their group."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("how", "code"), [("interrupted", 130), ("failed", 1)])
def test_a_job_of_two_ends(how: str, code: int) -> None:
    """DDP would wait for a thread of gloo's, and that one for the interpreter, which DDP holds."""
    words = [sys.executable, str(Path(__file__).with_name("interrupted.py")), how, "10"]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 9000 + code)}
    jobs = [
        subprocess.Popen(words, env=os.environ | common | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        assert [job.communicate(timeout=120)[0] for job in jobs] == [f"ended {{{code}}}\n"] * 2
        assert [job.returncode for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
