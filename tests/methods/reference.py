"""The formulas of the methods once more, slowly and in float64, with nothing taken from regmix.

Every function writes its formula out in elementary operations, so that the package's choice of torch functions, its
shared forward passes and its stop-gradients have something to be compared with.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHAPE = (2, 3, 3)
CLASSES = 4
HIDDEN = 6


def tiny_net(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A smooth network with BatchNorm on images of SHAPE, none of whose entries is that of a fresh layer."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(18, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, CLASSES)
    ).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        net[2].running_mean.normal_()
        net[2].running_var.uniform_(0.5, 2)
    return net


def images(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images of SHAPE in [0, 1], a quarter of whose pixels lie on the border of that range."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, *SHAPE, generator=generator, dtype=dtype) * 1.4 - 0.2).clamp(0, 1)


class Plain:
    """tiny_net from its formulas: parameters, running statistics, and a forward pass that updates them."""

    def __init__(self, net: nn.Sequential) -> None:
        self.parameters = [parameter.detach().clone().requires_grad_() for parameter in net.parameters()]
        self.mean = net[2].running_mean.clone()
        self.variance = net[2].running_var.clone()
        self.forwards = 0

    def __call__(self, x: Tensor, batch_statistics: bool = True) -> Tensor:
        w1, b1, scale, shift, w2, b2 = self.parameters
        h = x.reshape(len(x), -1) @ w1.T + b1
        mean, variance = self.mean, self.variance
        if batch_statistics:
            mean = h.sum(0) / len(h)
            variance = ((h - mean) ** 2).sum(0) / len(h)
            unbiased = variance.detach() * len(h) / (len(h) - 1)
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.variance = 0.9 * self.variance + 0.1 * unbiased
            self.forwards += 1
        h = (h - mean) / (variance + 1e-5) ** 0.5 * scale + shift
        return torch.log(1 + torch.exp(h)) @ w2.T + b2

    def gradient(self, loss: Tensor) -> Tensor:
        """The gradient of a loss in all parameters, as one vector."""
        grads = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(grads, self.parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def gradient_of(net: nn.Module) -> Tensor:
    """The parameters' .grad as one vector, in the order of Plain.gradient."""
    return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """||actual - expected|| / ||expected||."""
    return ((actual - expected).norm() / expected.norm()).item()


# Objectives, one number per example.


def softmax(z: Tensor) -> Tensor:
    return torch.exp(z) / torch.exp(z).sum(1, keepdim=True)


def kl(z_p: Tensor, z_q: Tensor) -> Tensor:
    """KL(p || q) = sum p (log p - log q), from the logits of both."""
    p, q = softmax(z_p), softmax(z_q)
    return (p * (torch.log(p) - torch.log(q))).sum(1)


def smoothed(labels: Tensor, mass: float) -> Tensor:
    """Probability `mass` on the true class, the rest spread evenly over the others."""
    target = torch.full((len(labels), CLASSES), (1 - mass) / (CLASSES - 1), dtype=torch.float64)
    target[torch.arange(len(labels)), labels] = mass
    return target


def cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    return -(target * torch.log(softmax(z))).sum(1)


def margin(z: Tensor, labels: Tensor) -> Tensor:
    rows = []
    for logits, label in zip(z, labels.tolist(), strict=True):
        rows.append(max(logits[c] for c in range(CLASSES) if c != label) - logits[label])
    return torch.stack(rows)


def accuracy(z: Tensor, labels: Tensor) -> float:
    return sum(int(row.argmax() == label) for row, label in zip(z, labels, strict=True)) / len(labels)


# Perturbations. `norm` is "linf" or "l2".


def project(delta: Tensor, x: Tensor, eps: float, norm: str = "linf") -> Tensor:
    """P: onto the ball of radius eps, then x + delta onto [0, 1]."""
    if norm == "linf":
        delta = _between(-eps, delta, eps)
    else:
        lengths = [float((one**2).sum() ** 0.5) for one in delta]
        factors = [1.0 if length <= eps else eps / length for length in lengths]
        delta = torch.stack([one * factor for one, factor in zip(delta, factors, strict=True)])
    return _between(0.0, x + delta, 1.0) - x


def _between(low: float, values: Tensor, high: float) -> Tensor:
    values = torch.where(values < low, low, values)
    return torch.where(values > high, high, values)


def direction(gradient: Tensor, norm: str = "linf") -> Tensor:
    if norm == "linf":
        return (gradient > 0).to(gradient) - (gradient < 0).to(gradient)
    return torch.stack([one / (one**2).sum() ** 0.5 for one in gradient])


def input_gradient(logits: Tensor, at: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """d sum_i objective(logits)_i / d at, keeping the graph of the logits."""
    return torch.autograd.grad(objective(logits).sum(), at, retain_graph=True)[0]


def climb(
    net: Plain,
    x: Tensor,
    start: Tensor,
    objective: Callable[[Tensor], Tensor],
    *,
    steps: int,
    step: float,
    eps: float,
    norm: str = "linf",
    batch_statistics: bool = True,
) -> tuple[Tensor, Tensor]:
    """delta_{k+1} = P[delta_k + step * direction(grad objective(f(x + delta_k)))]: delta_steps, f(x + delta_0)."""
    delta, outputs = start, []
    for _ in range(steps):
        at = delta.clone().requires_grad_()
        outputs.append(net(x + at, batch_statistics))
        gradient = input_gradient(outputs[-1], at, objective)
        delta = project(delta + step * direction(gradient, norm), x, eps, norm)
    return delta, outputs[0]


# Views: the window at (top, left) of the image with a border of `pad` zeros, then mirrored if flip.


def show(values: Tensor, view: tuple[Tensor, Tensor, Tensor], pad: int) -> Tensor:
    """What the views show of `values`."""
    shown = torch.zeros_like(values)
    for target, source in _places(values, view, pad):
        shown[target] = values[source]
    return shown


def put_back(seen: Tensor, onto: Tensor, view: tuple[Tensor, Tensor, Tensor], pad: int) -> Tensor:
    """`onto` with what the views saw put where they saw it."""
    result = onto.clone()
    for target, source in _places(onto, view, pad):
        result[source] = seen[target]
    return result


def _places(
    values: Tensor, view: tuple[Tensor, Tensor, Tensor], pad: int
) -> list[tuple[tuple[int, slice, int, int], tuple[int, slice, int, int]]]:
    """Pairs (place in the view, place in the image) of every pixel that the views see of the images."""
    height, width = values.shape[2:]
    top, left, flip = (part.tolist() for part in view[:3])
    pairs = []
    for example in range(len(values)):
        for i in range(height):
            for j in range(width):
                row = top[example] + i - pad
                column = left[example] + (width - 1 - j if flip[example] else j) - pad
                if 0 <= row < height and 0 <= column < width:
                    pairs.append(((example, slice(None), i, j), (example, slice(None), row, column)))
    return pairs


class Given:
    """A threat whose random starts are given, so that the package and the reference begin at the same place."""

    def __init__(self, threat: object, *, corner: Tensor | None = None, uniform: Tensor | None = None) -> None:
        self._threat, self._corner, self._uniform = threat, corner, uniform

    def __getattr__(self, name: str) -> object:
        return getattr(self._threat, name)

    def corner(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        assert self._corner is not None, "this method has no business with a corner"
        return self._corner

    def uniform(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        assert self._uniform is not None, "this method has no business with a uniform start"
        return self._uniform
