"""For every test: shape annotations are checked, torch keeps to one thread, the real data are there or skipped."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jaxtyping import install_import_hook

# Tests import what they share from the folders beside them, such as `methods.reference`.
sys.path.insert(0, str(Path(__file__).parent))
import contracts.shapes  # noqa: F401  the hook looks the checker up by this name

# The hook rewrites modules as they are imported, so one that is already there would go unchecked.
assert "regmix" not in sys.modules, "regmix was imported before its annotations could be checked"
install_import_hook("regmix", "contracts.shapes.check_shapes")
from contracts.devices import ON_CPU  # noqa: E402  after the hook
from contracts.torchvision_operators import declare_operators_of_torchvision  # noqa: E402
from regmix.data import Cifar10, ImageSet, load  # noqa: E402

# pytest-xdist runs one worker per core; more threads would only compete.
torch.set_num_threads(1)
if not ON_CPU:
    # Two calls of the same function then give the same bits, and float32 is float32.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("../shared/data is absent")
    return folder


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """timm, which imports torchvision."""
    declare_operators_of_torchvision()
    return pytest.importorskip("timm")


@pytest.fixture(scope="session")
def cifar10_test(shared: Path) -> ImageSet:
    return load(Cifar10(root=str(shared / "cifar10")), "test")
