"""Memory that tensors have freed is there for the next ones."""

import mmap
import platform
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, torch
from regmix.training import engine
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would hide what is counted
if {keep}:
    devices.start("cpu", "32")

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        tensors = [torch.ones(2**24) for _ in range(3)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(*, keep: bool) -> int:
    ran = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives it back and can be told not to")
def test_pages_are_not_given_back_and_got_anew() -> None:
    pages = 4 * 3 * 2**24 * 4 // mmap.PAGESIZE
    assert faults(keep=False) > 0.5 * pages, "there was nothing to avoid"
    assert faults(keep=True) < 0.01 * pages
