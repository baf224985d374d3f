"""Rounded float32 layers give what bfloat16 autocast gives, with gradients, and never compute in bfloat16."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regmix.models import ResNet, SmallCnn, WideResNet, build
from regmix.runtime.rounded import rounded_autocast

STEP = 2**-7
"""Largest relative distance between neighbouring bfloat16 numbers."""

LAYERS: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 9, 9)),
    "conv2d, groups, circular": (nn.Conv2d(4, 8, 3, groups=4, padding=1, padding_mode="circular"), (2, 4, 9, 9)),
    "conv3d": (nn.Conv3d(2, 3, 3), (2, 2, 5, 5, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    "linear": (nn.Linear(8, 5), (3, 8)),
    "bilinear form": (lambda x: x @ torch.linspace(-1, 1, 40).reshape(8, 5), (3, 8)),
    "matmul": (lambda x: torch.matmul(x, x.transpose(1, 2)), (2, 3, 8)),
    "reversed @": (lambda x: torch.linspace(-1, 1, 6).reshape(2, 3) @ x, (3, 8)),
    "bmm": (lambda x: x.bmm(x.transpose(1, 2)), (2, 3, 8)),
    "addmm": (lambda x: torch.addmm(input=torch.ones(3), mat1=x, mat2=x.T, beta=0.5), (3, 8)),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), (2, 3, 8)),
    "einsum of a list": (lambda x: torch.einsum("ij,kj->ik", [x, x]), (3, 8)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), (2, 3, 8)),
    "transformer": (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (2, 3, 8)),
    "einsum without a product": (lambda x: torch.einsum("bij->bji", x), (2, 3, 8)),
    "einsum that scales": (lambda x: torch.einsum("bc,c->bc", x, torch.linspace(1, 2, 8)), (3, 8)),
    "no layer": (lambda x: torch.softmax(x * 3, -1), (3, 8)),
}


def passed(layer: Callable[[Tensor], Any], x: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    """The output, and the gradient at x."""
    x = x.clone().requires_grad_()
    with context:
        out = layer(x)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    (gradient,) = torch.autograd.grad((out.float() * weights).sum(), x)
    return out.detach(), gradient


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_what_autocast_gives(name: str) -> None:
    layer, shape = LAYERS[name]
    torch.manual_seed(0)
    x = torch.randn(shape)
    out, gradient = passed(layer, x, rounded_autocast())
    expected, slope = passed(layer, x, torch.autocast("cpu", torch.bfloat16))
    assert out.dtype == expected.dtype
    if out.dtype == torch.float32:
        assert torch.equal(out, expected), "nothing was rounded"
    # A layer of several products rounds several times.
    assert (out.float() - expected.float()).abs().max() <= 4 * STEP * expected.float().abs().max()
    assert (gradient - slope).abs().max() <= 4 * STEP * slope.abs().max()


@pytest.mark.parametrize("name", ["conv2d", "linear", "bmm", "transposed"])
def test_it_is_the_rounded_sum_of_products_of_rounded_numbers(name: str) -> None:
    layer, shape = LAYERS[name]
    torch.manual_seed(1)
    x = torch.randn(shape)
    exact = x.bfloat16().double()
    if isinstance(layer, nn.Module):
        rounded = {key: value.bfloat16().double() for key, value in layer.named_parameters()}
        wanted = torch.func.functional_call(layer, rounded, (exact,))
    else:
        wanted = layer(exact)
    with rounded_autocast():
        out = layer(x)
    assert out.dtype == torch.bfloat16
    # Float32 sums are near enough that nearly all round as the exact ones do; no other sum is in question.
    assert (out == wanted.bfloat16()).float().mean() > 0.98
    assert (out.double() - wanted).abs().max() <= STEP * wanted.abs().max()


class Computed(TorchDispatchMode):
    """The types of the arguments of every convolution and product, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in func.__name__ for part in ("convolution", "mm.", "attention")):
            self.types |= {value.dtype for value in args if isinstance(value, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("network", [ResNet(width=4), WideResNet(depth=10, widen=1), SmallCnn(width=4)])
def test_networks_compute_in_float32_and_round(network) -> None:
    torch.manual_seed(0)
    model, x = build(network, 10, 3), torch.rand(4, 3, 32, 32)
    seen: set[torch.dtype] = set()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, given, made: seen.add(made.dtype))
    with Computed() as computed:
        with rounded_autocast():
            logits = model(x)
        F.cross_entropy(logits.float(), torch.arange(4)).backward()
    assert (computed.types, seen) == ({torch.float32}, {torch.bfloat16})
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    F.cross_entropy(logits.float(), torch.arange(4)).backward()
    theirs = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    F.cross_entropy(model(x), torch.arange(4)).backward()
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()
    assert (theirs - exact).norm() < 1.5 * (ours - exact).norm(), "it is as rough as bfloat16 is"


def test_what_autocast_leaves_alone_stays() -> None:
    layer, x = nn.Linear(8, 5), torch.randn(3, 8)
    with rounded_autocast():
        with torch.autocast("cpu", enabled=False):
            assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
            assert layer(x).dtype == torch.float32
        assert (x.double() @ x.double().T).dtype == torch.float64
        assert torch.equal(torch.arange(4) @ torch.arange(4), torch.tensor(14))
    assert layer(x).dtype == torch.float32
