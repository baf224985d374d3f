"""Flatness against closed forms of a logistic model, and against the dense Hessians of small networks."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from regmix.evaluation import flatness, hessian
from regmix.evaluation.hessian import largest_in_images, largest_in_weights
from regmix.models import SmallCnn, build
from regmix.threats import L1, L2, Linf
from regmix.types import UserError

EPS = 0.05
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # which torch.func.hessian uses
FIELDS = ("rise", "gradient_l1", "gradient_l2", "linearity", "input_eigenvalue")


def images(count: int = 6, side: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images at least 0.1 from the border of [0, 1]."""
    return 0.1 + 0.8 * torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


def labels(count: int = 6, classes: int = 3) -> Tensor:
    return torch.arange(count) % classes


class Logistic(nn.Module):
    """Logits (w . x, 0)."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w
        return torch.stack([score, torch.zeros_like(score)], 1)


class Net(nn.Module):
    """Two convolutions with BatchNorm and 3 classes; 134 parameters."""

    def __init__(self, activation=F.softplus, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.norm, self.deep = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, bias=False)
        self.head, self.activation = nn.Linear(3, 3), activation
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.norm.running_var, 0.05, 0.2)
        self.head.weight.data *= 5
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.norm(self.conv(x)))
        return self.head(self.activation(self.deep(hidden)).mean((2, 3)))


def dense_in_image(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian [n, n] of the loss in one image."""
    full = torch.func.hessian(lambda image: F.cross_entropy(model(image[None]), y[None]))(x)
    return full.reshape(x.numel(), x.numel())


def dense_in_weights(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian [n, n] of the mean loss in all parameters."""
    weights = {name: w.detach() for name, w in model.named_parameters()}
    sizes = [w.numel() for w in weights.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(weights.items(), flat.split(sizes), strict=True)
        return F.cross_entropy(functional_call(model, {name: part.view_as(w) for (name, w), part in parts}, (x,)), y)

    return torch.func.hessian(loss)(torch.cat([w.flatten() for w in weights.values()]))


def top(matrix: Tensor) -> float:
    return float(torch.linalg.eigvalsh(matrix.detach())[-1])


def logistic() -> tuple[Logistic, Tensor, Tensor, Tensor]:
    """A logistic model, images, labels 0 and 1, and the probability of the wrong class."""
    w = torch.linspace(-1, 1.5, 36, dtype=torch.float64)
    x, y = images(), labels(6, 2)
    model = Logistic(w)
    return model, x, y, model(x).detach().softmax(1).gather(1, 1 - y[:, None])[:, 0]


def test_closed_forms_of_a_logistic_model() -> None:
    model, x, y, q = logistic()
    w = model.w.detach()
    found = flatness(model, x, y, Linf(EPS), probes=50)
    torch.testing.assert_close(found.gradient_l1, q * w.abs().sum())
    torch.testing.assert_close(found.gradient_l2, q * w.norm())
    torch.testing.assert_close(found.input_eigenvalue, q * (1 - q) * w.square().sum())
    assert found.input_converged.all()
    # the error is convex in d . w, so largest at one of the two corners +-eps sign(w)
    margin, slope = torch.log((1 - q) / q), EPS * w.abs().sum()
    corners = [F.softplus(-margin - side * slope) - F.softplus(-margin) + side * q * slope for side in (1, -1)]
    torch.testing.assert_close(found.linearity, torch.maximum(*corners))
    # the mean over images of q (1 - q) x x'
    matrix = (q * (1 - q) * x.flatten(1).T) @ x.flatten(1) / len(x)
    assert found.weight_converged
    assert found.weight_eigenvalue == pytest.approx(top(matrix), rel=1e-3)
    assert abs(found.weight_trace - float(matrix.trace())) < 3 * found.weight_trace_error < float(matrix.trace())


def test_the_rise_of_a_model_of_one_pixel_has_a_closed_form() -> None:
    """Half of the directions move the pixel up, half down, by eps: the mean over pairs has no noise."""
    w = torch.zeros(36, dtype=torch.float64)
    w[7] = 9.0
    x, y = images(), torch.zeros(6, dtype=torch.long)
    score = 9 * x.flatten(1)[:, 7]
    expected = (F.softplus(-score - 9 * EPS) + F.softplus(-score + 9 * EPS)) / 2 - F.softplus(-score)
    torch.testing.assert_close(flatness(Logistic(w), x, y, Linf(EPS), probes=2).rise, expected)
    # At the border of the image's range only one of the two can move.
    x[:, 0, 1, 1] = 0
    expected = (F.softplus(torch.tensor(-9 * EPS, dtype=torch.float64)) - F.softplus(torch.zeros(()).double())) / 2
    torch.testing.assert_close(flatness(Logistic(w), x, y, Linf(EPS), probes=2).rise, expected.expand(6))


@FORWARD_MODE
@pytest.mark.parametrize("activation", [F.softplus, F.relu, torch.sin])
def test_eigenvalues_and_trace_are_those_of_dense_hessians(activation) -> None:
    model, x, y = Net(activation).eval(), images(), labels()
    found = flatness(model, x, y, Linf(EPS), probes=60)
    inputs = [dense_in_image(model, *pair) for pair in zip(x, y, strict=True)]
    expected = torch.tensor([top(matrix) for matrix in inputs], dtype=torch.float64)
    assert found.input_converged.all()
    torch.testing.assert_close(found.input_eigenvalue, expected, rtol=1e-3, atol=1e-12)
    weights = dense_in_weights(model, x, y).detach()
    assert found.weight_converged
    assert found.weight_eigenvalue == pytest.approx(top(weights), rel=1e-3)
    assert abs(found.weight_trace - float(weights.trace())) < 3 * found.weight_trace_error
    spread = (2 * (weights.square().sum() - weights.diagonal().square().sum()) / 60).sqrt()
    assert found.weight_trace_error == pytest.approx(float(spread), rel=0.3)


def test_float32_agrees_with_float64_and_batches_do_not_matter() -> None:
    x, y = images(4), labels(4)
    fine, split = (flatness(Net(), x, y, L2(0.3), probes=4, batch_size=size) for size in (4, 3))
    for name in FIELDS:
        torch.testing.assert_close(getattr(fine, name), getattr(split, name), rtol=1e-6, atol=1e-12)
    assert fine.weight_eigenvalue == pytest.approx(split.weight_eigenvalue, rel=1e-6)
    assert fine.weight_trace == pytest.approx(split.weight_trace, rel=1e-6)
    coarse = flatness(Net(dtype=torch.float32), x.float(), y, L2(0.3), probes=4)
    assert coarse.rise.dtype == torch.float64
    for name in ("gradient_l1", "gradient_l2", "input_eigenvalue"):
        torch.testing.assert_close(getattr(coarse, name), getattr(fine, name), rtol=2e-3, atol=1e-7)
    assert coarse.weight_eigenvalue == pytest.approx(fine.weight_eigenvalue, rel=2e-3)


@pytest.mark.parametrize("threat", [Linf(EPS), L2(0.3), L1(1.0)])
def test_same_seed_same_numbers_and_another_seed_others(threat) -> None:
    x, y = images(3), labels(3)
    one, same, other = (flatness(Net(F.relu), x, y, threat, seed, probes=4) for seed in (0, 0, 1))
    assert all(torch.equal(getattr(one, name), getattr(same, name)) for name in FIELDS)
    assert (one.weight_eigenvalue, one.weight_trace) == (same.weight_eigenvalue, same.weight_trace)
    assert not torch.equal(one.rise, other.rise)
    assert one.weight_trace != other.weight_trace
    torch.testing.assert_close(one.input_eigenvalue, other.input_eigenvalue, rtol=1e-3, atol=1e-9)
    assert (one.linearity > 0).all()


def test_the_model_stays_as_it_was() -> None:
    model, x, y = build(SmallCnn(width=2), 3, channels=1).train(), images(dtype=torch.float32), labels()
    model.conv1.weight.requires_grad_(False)
    model.bn2.eval()
    F.cross_entropy(model(x), y).backward()
    before = copy.deepcopy(model)
    gradients = [None if w.grad is None else w.grad.clone() for w in model.parameters()]
    flatness(model, x, y, Linf(EPS), probes=2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert [w.requires_grad for w in model.parameters()] == [w.requires_grad for w in before.parameters()]
    for w, gradient in zip(model.parameters(), gradients, strict=True):
        assert (w.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(w.grad, gradient)


class Once(torch.autograd.Function):
    """Doubles; can be differentiated once."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Around(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.function = Net(), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner, x)


class Never(torch.autograd.Function):
    """The identity, without a backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        raise RuntimeError("a derivative is not implemented")


class NeverTwice(torch.autograd.Function):
    """The identity, whose backward pass has none."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return Never.apply(gradient)


class StraightThrough(torch.autograd.Function):
    """Rounds; the gradient passes as if it did not."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return (64 * x).round() / 64

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


REFUSED = {
    "differ from differences": lambda model, x: Once.apply(model(x)),
    "straight-through": lambda model, x: model(StraightThrough.apply(x)),
    "no second derivatives": lambda model, x: NeverTwice.apply(model(x)),
    "constant or detached": lambda model, x: model((8 * x).round() / 8),
    "not finite": lambda model, x: model(x) + (x - x.detach()).square().sum((1, 2, 3)).sqrt()[:, None],
    "no gradient flows": lambda model, x: model(x.detach()),
    "is random": lambda model, x: model(x + 0.1 * torch.randn_like(x)),
    "others in its batch": lambda model, x: model(x - x.mean(0)),
}


@pytest.mark.parametrize("said", REFUSED)
def test_a_model_that_cannot_be_measured_is_refused_in_one_line(said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        flatness(Around(REFUSED[said]), images(), labels(), Linf(EPS))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": labels() + 1}, "labels reach 3 but the model has 3"),
        ({"x": 2 * images()}, "images lie in"),
        ({"threat": 0.1}, "the threat is 0.1"),
        ({"draws": 3}, "even"),
        ({"probes": 1}, "at least 2"),
        ({"batch_size": 0}, "at least 1"),
        ({"model": nn.Flatten()}, "no parameters"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, said) -> None:
    given = {"model": Net(), "x": images(), "y": labels(), "threat": Linf(EPS)} | change
    with pytest.raises(UserError, match=said):
        flatness(**given)


@FORWARD_MODE
def test_attention_can_be_differentiated_twice() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.head = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x[:, 0]).mean(1))

    model, x, y = Attentive().double(), images(2), labels(2)
    found = flatness(model, x, y, Linf(EPS), probes=2)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = [top(dense_in_image(model.eval(), *pair)) for pair in zip(x, y, strict=True)]
    torch.testing.assert_close(found.input_eigenvalue, torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=0)


def quadratics() -> Tensor:
    """Matrices [7, 20, 20]: indefinite, negative, zero, the identity with a spike, low rank, a large negative side."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(7, 20, 20, generator=generator, dtype=torch.float64)).Q
    spectra = torch.stack(
        [
            torch.linspace(-1, 1, 20),
            torch.linspace(-2, -1, 20),
            torch.zeros(20),
            torch.cat([torch.ones(19), torch.tensor([1.05])]),
            torch.cat([torch.zeros(18), torch.tensor([3e-9, 5e-9])]),
            torch.cat([torch.linspace(-1e3, -1, 19), torch.tensor([1e-2])]),
            torch.cat([-torch.ones(2), torch.zeros(18)]),
        ]
    ).double()
    return turn @ torch.diag_embed(spectra) @ turn.mT


def start() -> Tensor:
    return torch.randn(7, 1, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_largest_algebraic_eigenvalue_of_quadratics_not_the_largest_in_size() -> None:
    matrices = quadratics()
    found = largest_in_images(lambda v: torch.einsum("bij,bj->bi", matrices, v.flatten(1)).view_as(v), start())
    expected = torch.linalg.eigvalsh(matrices)[:, -1]
    assert found.converged.all()
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-12)
    for number, matrix in enumerate(matrices):
        single = largest_in_weights(lambda v, matrix=matrix: matrix @ v, start()[number].flatten())
        assert single.converged, number
        assert single.value == pytest.approx(float(expected[number]), rel=1e-3, abs=1e-9), number


def test_what_has_not_converged_says_so_and_is_a_lower_bound(monkeypatch) -> None:
    monkeypatch.setattr(hessian, "MOST_STEPS", 3)
    matrix = torch.diag(torch.linspace(0, 1, 1000, dtype=torch.float64) ** 0.1)
    first = torch.randn(2, 1, 10, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = largest_in_images(lambda v: (v.flatten(1) @ matrix).view_as(v), first)
    assert not found.converged.any()
    assert (found.values < 1).all()
    monkeypatch.setattr(hessian, "RESTARTS", 1)
    monkeypatch.setattr(hessian, "TOLERANCE", 1e-12)
    single = largest_in_weights(lambda v: matrix @ v, first[0].flatten())
    assert not single.converged
    assert 0.5 < single.value < 1


def test_the_trace_of_a_diagonal_has_no_noise() -> None:
    weights, generator = torch.arange(6.0), torch.Generator().manual_seed(0)
    found = hessian.trace(lambda v: weights * v, (hessian.signs(weights, generator) for _ in range(5)))
    assert found == (15.0, 0.0)
