"""What the bare passes of a ResNet-18 cost on a GPU: eager and recorded, in several settings, and kernel by kernel.

python benchmarks/gpu/passes.py [--batch-size 128] [--compile] [--device cpu, to rehearse]

It tells which setting a training step should use before any training is timed. Times are medians in milliseconds: F of
a forward pass, I and P of what a backward pass to the images or to the parameters adds; a step of `regmix` makes four,
two and three of them.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from regmix.models import ResNet, build
from regmix.objectives import cross_entropy
from regmix.runtime.recorder import recorder
from regmix.studies.floor import DTYPES, now, product_rate, time_of

REPEATS = 30


def network(device: torch.device, layout: torch.memory_format = torch.channels_last) -> nn.Module:
    torch.manual_seed(0)
    return build(ResNet(), 10, 3).to(device).to(memory_format=layout).train()


class Works:
    """The three kinds of passes."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
        self._model, self._x, self._y, self._dtype = model, x, y, dtype
        self._parameters, self.device = [*model.parameters()], x.device

    def forward(self, x: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return cross_entropy(self._model(self._x if x is None else x), self._y).mean()

    def to_images(self) -> None:
        x = self._x.detach().requires_grad_()
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        torch.autograd.grad(self.forward(x), x)
        for parameter in self._parameters:
            parameter.requires_grad_(True)

    def to_parameters(self) -> None:
        torch.autograd.grad(self.forward(), self._parameters)


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        work()
    return 1000 * statistics.median(time_of(work, device) for _ in range(REPEATS if device.type == "cuda" else 1))


def recorded(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    tool = recorder(device)
    for _ in range(3):
        _, why = tool.rehearse(work)
    if why:
        print(f"cannot be recorded: {why}")
    return tool.record(work)[1]


def report(label: str, works: Works, *, eager: bool = True) -> None:
    for kind in ("eager", "recorded") if eager else ("recorded",):
        passes = works.forward, works.to_images, works.to_parameters
        ways = [work if kind == "eager" else recorded(work, works.device) for work in passes]
        f, i, p = (milliseconds(way, works.device) for way in ways)
        print(f"{label:32} {kind:9} F {f:.3f}  I {i - f:.3f}  P {p - f:.3f}  "
              f"4 F 2 I 3 P {4 * f + 2 * (i - f) + 3 * (p - f):.2f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--compile", action="store_true", help="torch.compile, too, which takes a minute")
    parser.add_argument("--device", default="cuda")
    flags = parser.parse_args()
    device = torch.device(flags.device)
    torch.backends.cudnn.allow_tf32 = False
    card = torch.cuda.get_device_name() if device.type == "cuda" else "a rehearsal on a CPU"
    print(f"{card}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, batch size {flags.batch_size}")
    for name in ("bf16", "32"):
        print(f"product of matrices in {name}: {product_rate(device, DTYPES[name]) / 1e12:.3g} TFLOP/s")
    x = torch.rand(flags.batch_size, 3, 32, 32, device=device)
    y = torch.randint(10, (flags.batch_size,), device=device)
    for label, layout, dtype, search in (
        ("bf16 channels_last", torch.channels_last, torch.bfloat16, False),
        ("bf16 channels_last, benchmark", torch.channels_last, torch.bfloat16, True),
        ("bf16 contiguous, benchmark", torch.contiguous_format, torch.bfloat16, True),
        ("float32 channels_last", torch.channels_last, torch.float32, False),
        ("float32 contiguous", torch.contiguous_format, torch.float32, False),
    ):
        torch.backends.cudnn.benchmark = search
        report(label, Works(network(device, layout), x.contiguous(memory_format=layout), y, dtype))
    torch.backends.cudnn.benchmark = False
    last = x.contiguous(memory_format=torch.channels_last)
    works = Works(network(device), last, y, torch.bfloat16)
    for _ in range(3):
        works.to_parameters()
    with profile(activities=[getattr(ProfilerActivity, device.type.upper())]) as seen:
        for _ in range(5):
            works.to_parameters()
        now(device)
    order = f"self_{device.type}_time_total"
    print(seen.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=90))
    if flags.compile:
        compiled = torch.compile(network(device))
        report("bf16 channels_last, compiled", Works(compiled, last, y, torch.bfloat16), eager=False)


if __name__ == "__main__":
    main()
