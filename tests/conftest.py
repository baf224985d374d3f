"""For every test: the shape annotations of regmix are checked, and torch keeps to one thread."""

import sys
from pathlib import Path

import torch
from jaxtyping import install_import_hook

# Tests import what they share from the folders beside them, such as `methods.reference`.
sys.path.insert(0, str(Path(__file__).parent))
import contracts.shapes  # noqa: F401  the hook looks the checker up by this name

# The hook rewrites modules as they are imported, so one that is already there would go unchecked.
assert "regmix" not in sys.modules, "regmix was imported before its annotations could be checked"
install_import_hook("regmix", "contracts.shapes.check_shapes")

# pytest-xdist runs one worker per core; more threads would only compete.
torch.set_num_threads(1)
