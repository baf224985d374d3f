"""Which precision a device gets, and memory that tensors have freed is there for the next ones."""

import mmap
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from contracts.devices import DEVICE
from regmix.runtime import devices

FAULTS = """
import ctypes, resource, torch
from regmix.runtime import devices
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


@pytest.mark.parametrize(("capable", "expected"), [(True, "bf16"), (False, "32")])
def test_auto_is_bfloat16_only_where_the_hardware_computes_in_it(
    capable: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: capable)
    assert devices.resolved("auto", cpu) == expected
    assert [devices.resolved(chosen, cpu) for chosen in ("32", "bf16", "64")] == ["32", "bf16", "64"]


class Seen(nn.Module):
    """Remembers the types of its arguments, and of the output of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, nested: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
        self.given = nested[0].dtype, nested[1]["state"].dtype
        made: Tensor = self.layer(nested[0])
        self.made = made.dtype
        return made


@pytest.mark.device
@pytest.mark.parametrize(
    ("precision", "given", "made"),
    [
        ("32", torch.float32, torch.float32),
        ("bf16", torch.float32, torch.bfloat16),
        ("64", torch.float64, torch.float64),
    ],
)
def test_only_layers_compute_in_bfloat16_and_what_a_step_gets_is_not_rounded(
    precision: devices.Precision, given: torch.dtype, made: torch.dtype
) -> None:
    """Fabric's own plugin rounds images, perturbations and memories, too."""
    fabric, seen = devices.start(DEVICE.type, precision), Seen()
    x = torch.rand(3, 2, device=DEVICE)
    fabric.setup_module(seen)((x, {"state": torch.full((1,), 257.0, device=DEVICE)}))
    assert seen.given == (given, given)
    assert seen.made == made


@pytest.mark.parametrize(("capable", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_without_bfloat16_arithmetic_computes_layers_in_float32(
    capable: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: capable)
    computed = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "mm" in func.__name__:
                computed.extend(value.dtype for value in args if isinstance(value, Tensor))
            return func(*args, **(kwargs or {}))

    fabric, layer = devices.start("cpu", "bf16"), nn.Linear(2, 2)
    with Products():
        made = fabric.setup_module(layer)(torch.rand(3, 2))
        with fabric.autocast():
            assert layer(torch.rand(3, 2)).dtype == torch.bfloat16
    assert set(computed) == {expected}
    assert made.dtype == torch.float32  # Fabric converts what a model returns


@pytest.mark.parametrize(
    ("machine", "has", "expected"),
    [
        ("x86_64", {"_is_avx512_bf16_supported"}, True),
        ("AMD64", {"_is_amx_tile_supported"}, True),
        ("x86_64", set(), False),  # AVX2, and AVX-512 of before 2020, which emulate it
    ],
)
def test_which_processors_compute_in_bfloat16(
    machine: str, has: set[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in has)
    assert devices.computes_in_bfloat16(torch.device("cpu")) is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_which_gpus_compute_in_bfloat16(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.computes_in_bfloat16(torch.device("cuda")) is expected
