"""How OpenMP's workers wait is said before torch is imported, unless the user has said it."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "found"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_the_users_choice_counts(given: dict[str, str], found: str) -> None:
    program = (
        "import os, sys; from regmix.runtime.threads import share_the_cpu; share_the_cpu(); "
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [found, "False"]
