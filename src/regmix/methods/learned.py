"""A small network that a method trains beside the model: its whole state is one vector in the method's memory.

So it is saved, restored bit for bit, moved and left alone by a first pass of adversarial weight perturbation like every
other memory. It is not averaged: nobody but the method uses it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Learned:
    """The outline of a network, and Adam for it (arXiv 1412.6980, as torch.optim.Adam with L2 regularisation).

    The vector holds the weights, the statistics of BatchNorm, Adam's two moments of every weight, and the number of its
    steps. `build` makes the network with fresh weights.
    """

    def __init__(self, build: Callable[[], nn.Module], *, rate: float, weight_decay: float = 0.0) -> None:
        self._build, self._rate, self._weight_decay = build, rate, weight_decay
        with torch.device("meta"):
            self._outline = build()
        self._shapes = {name: parameter.shape for name, parameter in self._outline.named_parameters()}
        self._statistics = {name: b.shape for name, b in self._outline.named_buffers() if b.is_floating_point()}
        self._weights = sum(shape.numel() for shape in self._shapes.values())
        self._kept = sum(shape.numel() for shape in self._statistics.values())

    def fresh(self, device: torch.device | str) -> Tensor:
        """The vector of a network that has learned nothing, with weights as `build` draws them."""
        with torch.device(device):
            network = self._build()
        values = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
        flat = torch.cat([value.detach().flatten() for value in values])
        return torch.cat([flat, flat.new_zeros(2 * self._weights + 1)])

    def parts(self, state: Tensor) -> list[Tensor]:
        """Weights, statistics, first and second moments, and the number of steps, as views of a vector."""
        return [*torch.split(state, [self._weights, self._kept, self._weights, self._weights, 1])]

    def __call__(self, weights: Tensor, statistics: Tensor, x: Tensor, *, train: bool) -> Tensor:
        """The output for x; in train mode BatchNorm uses the batch's statistics and changes `statistics` in place."""
        named = _named(weights, self._shapes) | _named(statistics, self._statistics)
        self._outline.train(train)
        output: Tensor = functional_call(self._outline, named, (x,))
        return output

    def stepped(self, state: Tensor, statistics: Tensor, gradient: Tensor) -> Tensor:
        """The vector after a step of Adam against the gradient of the weights, with new statistics.

        A step that would leave infinities or NaN changes nothing.
        """
        weights, _, first, second, steps = self.parts(state)
        gradient = gradient + self._weight_decay * weights
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient.square()
        steps = steps + 1
        size = (second / (1 - BETAS[1] ** steps)).sqrt() + EPSILON
        weights = weights - self._rate * first / (1 - BETAS[0] ** steps) / size
        after = torch.cat([weights, statistics, first, second, steps])
        return torch.where(after.isfinite().all(), after, state)


def _named(flat: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    pieces = torch.split(flat, [shape.numel() for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
